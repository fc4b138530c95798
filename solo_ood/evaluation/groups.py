"""Accuracy for Many, Medium and Few, the protocol of long-tailed representation learning."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_ood.data.image_folder import image_folder
from solo_ood.errors import UserError
from solo_ood.selection.classes import class_groups


def groups_of(tail_path: str | None, reference_path: str | None = None) -> dict[str, list[int]]:
    """Return the class ids of Many, Medium and Few by the counts of the ImageFolder ``tail_path``.

    Args:
        tail_path: the long-tailed data; ``None`` gives no groups.
        reference_path: ImageFolder whose class ids are meant.

    Raises:
        UserError: if the two do not have the same classes.
    """
    if tail_path is None:
        return {}
    tail = image_folder(tail_path)
    if reference_path is not None and image_folder(reference_path).classes != tail.classes:
        raise UserError(
            "data that define Many, Medium and Few",
            expected=f"the classes of {reference_path}",
            got=f"those of {tail_path}",
            remedy="Set data.tail_path (--tail_data_path) to your long-tailed training set, "
            "or to null for no groups.",
        )
    return class_groups(tail.targets)


def group_masks(targets: Tensor, groups: dict[str, list[int]]) -> dict[str, Tensor]:
    """Return (N,) bool by group: the samples of its classes. Groups without any are left out."""
    masks = {name: torch.isin(targets, torch.tensor(ids)) for name, ids in groups.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def grouped_accuracy(
    predictions: Tensor, targets: Tensor, groups: dict[str, list[int]]
) -> dict[str, float]:
    """Return the accuracy in percent: of all samples, and of those of each group.

    Args:
        predictions: (N,) class ids.
        targets: (N,) class ids.
        groups: class ids by group name, as from ``groups_of``.
    """
    right = (predictions == targets).float()
    result = {"All": float(right.mean()) * 100}
    for name, mask in group_masks(targets, groups).items():
        result[name] = float(right[mask].mean()) * 100
    return result


def format_groups(result: dict[str, float]) -> str:
    """Return one line: ``All 81.2  Many 90.1  ...`` in percent."""
    return "  ".join(f"{name} {value:.1f}" for name, value in result.items())
