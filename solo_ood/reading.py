"""Read samples of a dataset of which some cannot be read, and name the files in errors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from solo_ood.errors import UserError
from solo_ood.rng import rng_state, set_rng_state

PROBES = 8  # samples tried before a dataset counts as unreadable


class Reader(Dataset):
    """``dataset`` with a blank row for what cannot be read: one bad file must not end a run.

    Its samples are pairs: ``(index, crops, target)`` and ``None``; for a blank row ``(-1 - index,
    crops of NaN, any target)`` and the reason.

    Args:
        dataset: the training dataset.
        like: one of its samples.
    """

    def __init__(self, dataset: Any, like: Sequence[Any]) -> None:
        self.dataset = dataset
        index, crops, target = like
        one = isinstance(crops, torch.Tensor)
        blank = _blank(crops) if one else [_blank(crop) for crop in crops]
        self._zero, self._blank, self._target = 0 * index, blank, target  # an int or a tensor

    def __getattr__(self, name: str) -> Any:
        # A ``worker_init_fn`` finds this reader where it expects the dataset.
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # It may keep opened files there.
        if name in ("dataset", "_zero", "_blank", "_target"):
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)

    def __getitem__(self, index: int) -> tuple[Sequence[Any], str | None]:
        try:
            return self.dataset[index], None
        except Exception as error:  # a reader may raise anything
            reason = error.__cause__ or error  # without the words of `_NamingFiles`
            return self.blank(index), f"{type(reason).__name__}: {reason}"

    def blank(self, index: int) -> Sequence[Any]:
        """Return the row that stands for what could not be read."""
        return self._zero - 1 - index, self._blank, self._target


class CollateReasons:
    """The train loader's collation, of the pairs of a ``Reader``: a batch and the reasons."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, pairs: Sequence[tuple[Any, str | None]]) -> tuple[Any, list[str]]:
        samples, reasons = zip(*pairs)
        return self.collate_fn(list(samples)), [reason for reason in reasons if reason is not None]


def probe(dataset: Any) -> Sequence[Any]:
    """Return a sample; raise unless it is ``(i, crops, target)``, as solo-learn's own are."""
    remedy = (
        "Wrap its class in solo-learn's `dataset_with_index`, or keep the crops themselves with "
        "ood.queue.store=crops."
    )
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise UserError(
            "training dataset",
            expected="a map-style dataset that can be read by index",
            got=type(dataset).__name__,
            remedy=remedy,
        )
    index, sample = _first_readable(dataset)
    if not (isinstance(sample, (tuple, list)) and len(sample) == 3 and _is_index(sample[0], index)):
        got = f"a sample of {len(sample)} parts" if isinstance(sample, (tuple, list)) else sample
        raise UserError(
            "training dataset",
            expected="samples (index, crops, target) whose index is their position",
            got=got,
            remedy=remedy,
        )
    return sample


def _first_readable(dataset: Any) -> tuple[int, Any]:
    reason: Exception | None = None
    for index in range(min(PROBES, len(dataset))):
        try:
            with _global_rng_kept():
                return index, copy.copy(dataset)[index]  # a copy: opened h5 files are not shared
        except Exception as error:
            reason = error
    raise UserError(
        "training dataset",
        expected=f"a readable sample among the first {PROBES}",
        got=f"{type(reason).__name__}: {reason}" if reason else "no sample",
        remedy="Repair or remove the files.",
    ) from reason


class _NamingFiles:
    """An image loader whose errors name the file; PIL's "image file is truncated" does not."""

    def __init__(self, loader: Callable[..., Any]) -> None:
        self.loader = loader

    def __call__(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.loader(path, *args, **kwargs)
        except Exception as error:
            raise UserError(
                str(path),
                expected="a readable image",
                got=f"{type(error).__name__}: {error}",
                remedy="Repair or replace the file and resume from the last checkpoint. "
                "(Without it, the samples after it get other indexes.)",
            ) from error


def name_files_in_errors(dataset: Any) -> None:
    """Let the errors of an ImageFolder name the file; to be called before workers hold it."""
    loader = getattr(dataset, "loader", None)
    if callable(loader) and not isinstance(loader, _NamingFiles):
        with suppress(AttributeError):  # of a property that cannot be set
            dataset.loader = _NamingFiles(loader)


def file_of(dataset: Any, index: int) -> str:
    """Return the path of a sample of an ImageFolder or of solo-learn's folder without classes."""
    try:
        if hasattr(dataset, "samples"):
            return str(dataset.samples[index][0])
        return str(Path(dataset.root) / dataset.images[index])
    except Exception:  # of whatever dataset it is
        return "of no known file"


def _blank(crop: torch.Tensor) -> torch.Tensor:
    """Return NaN of the crop's shape in the memory of one number."""
    value = float("nan") if crop.is_floating_point() else 0
    return crop.new_full((), value).expand(crop.shape)


@contextmanager
def _global_rng_kept() -> Iterator[None]:
    """Undo what the augmentations of a probed sample draw from the global generators."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def _is_index(value: Any, index: int) -> bool:
    return (
        isinstance(value, (int, torch.Tensor))
        and not isinstance(value, bool)
        and bool(value == index)
    )
