"""Put replayed samples into a batch without changing its contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solo_ood.errors import UserError
from solo_ood.selection.hashing import hash_int, hash_tensor


def drawn_order(n_rows: int, n_dropped: int, *seeds: int) -> Tensor:
    """Return the rows of a batch in an order (B,), on the host, those that are dropped last.

    They are drawn by ``seeds`` alone, such as a seed and the step, so a resumed run drops the same.
    Were they always the same rows, a loader that does not shuffle would always drop the same
    samples. The rows that are kept stay in their order.
    """
    shuffled = hash_tensor(torch.arange(n_rows), hash_int(*seeds)).argsort()
    kept, dropped = shuffled.tensor_split([max(0, n_rows - n_dropped)])
    return torch.cat((kept.sort().values, dropped))


def mix(
    batch: Sequence[Any],
    rare: Sequence[Any],
    mode: str = "replace",
    order: Tensor | None = None,
) -> list[Any]:
    """Put the m rows of ``rare`` at the end of ``batch``; neither input is changed.

    Args:
        batch: ``[indexes (B,), [crop (B, 3, H, W), ...], targets (B,)]``.
        rare: the same with m < B rows; every crop of the same size as its partner.
        mode: ``replace`` drops m rows of the batch first, so that it keeps its size; ``append``
            lets it grow to B + m.
        order: (B,) int64 on the host, an order of the batch's rows whose last m are dropped, see
            ``drawn_order``; ``None`` = as they come.

    Returns:
        The mixed batch, rows ``[-m:]`` replayed, in the batch's dtype, device and memory format.

    Raises:
        UserError: if the crops do not fit.
    """
    indexes, crops, targets = batch
    rare_indexes, rare_crops, rare_targets = rare
    keep = len(indexes) - len(rare_indexes) if mode == "replace" else len(indexes)
    if keep < (1 if mode == "replace" else 0):
        raise UserError(
            "replayed rows",
            expected=f"fewer than the batch's {len(indexes)}",
            got=len(rare_indexes),
            remedy="Set drop_last=True in the train loader, or lower ood.mix.ratio.",
        )
    single = isinstance(crops, Tensor)
    if single:
        crops, rare_crops = [crops], [rare_crops]
    if len(crops) != len(rare_crops):
        raise _crop_mismatch(f"{len(crops)} crops a sample", len(rare_crops))
    kept = None
    if order is not None:
        kept = order[:keep]
        if indexes.is_cuda:  # from pageable memory the copy would wait for the device
            kept = kept.pin_memory()
        kept = kept.to(indexes.device, non_blocking=True)
    mixed = [_join(crop, rare_crop, keep, kept) for crop, rare_crop in zip(crops, rare_crops)]
    return [
        _join(indexes, rare_indexes, keep, kept),
        mixed[0] if single else mixed,
        _join(targets, rare_targets, keep, kept),
    ]


def _join(rows: Tensor, rare: Tensor, keep: int, kept: Tensor | None) -> Tensor:
    if rows.shape[1:] != rare.shape[1:]:
        raise _crop_mismatch(f"rows of shape {tuple(rows.shape[1:])}", tuple(rare.shape[1:]))
    fresh = rows[:keep] if kept is None else rows.index_select(0, kept)
    joined = torch.cat((fresh, rare.to(rows)))
    if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last):
        joined = joined.contiguous(memory_format=torch.channels_last)
    return joined


def _crop_mismatch(expected: str, got: Any) -> ValueError:
    remedy = "The replay must read the dataset with the transform of the train loader."
    return UserError("replayed rows", expected=expected, got=got, remedy=remedy)
