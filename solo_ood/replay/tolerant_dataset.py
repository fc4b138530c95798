"""Read a dataset some of whose samples cannot be read; name the file in errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from numbers import Integral
from typing import Any

import torch
from torch.utils.data import Dataset

from solo_ood.errors import UserError, short_repr
from solo_ood.replay.positions import Positions, copied, parts_of
from solo_ood.replay.rng import rng_state, set_rng_state

PROBES = 8  # samples tried before a dataset counts as unreadable

_REMEDY = (
    "Wrap its class in solo-learn's `dataset_with_index`, or keep the crops themselves with "
    "ood.queue.store=crops."
)


class TolerantDataset(Dataset):
    """``dataset`` with a blank row for what cannot be read: one bad file must not end a run.

    Its samples are pairs: ``(index, crops, target)`` and ``None``; for a blank row ``(-1 - index,
    crops of NaN, any target)`` and the reason.

    Args:
        dataset: the training dataset.
        like: one of its samples.
        positions: where the sample with an index is; ``None`` = at that position.
    """

    def __init__(
        self, dataset: Any, like: Sequence[Any], positions: Positions | None = None
    ) -> None:
        self.dataset = dataset
        self.positions = positions or Positions(dataset)
        index, crops, target = like
        one = isinstance(crops, torch.Tensor)
        blank = _blank(crops) if one else [_blank(crop) for crop in crops]
        zero = 0 * index if isinstance(index, torch.Tensor) else 0  # NumPy's may have no sign
        self._zero, self._blank, self._target = zero, blank, target

    def __getattr__(self, name: str) -> Any:
        # A ``worker_init_fn`` finds this reader where it expects the dataset.
        if name in ("dataset", "positions") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # It may keep opened files there.
        if name in ("dataset", "positions", "_zero", "_blank", "_target"):
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)

    def __getitem__(self, index: int) -> tuple[Sequence[Any], str | UserError | None]:
        try:
            position = self.positions.position_of(index)
            if position is None:
                raise IndexError(f"{index} is none of the {len(self.positions)} samples")
            sample = self.dataset[position]
            found = sample[0]
        except Exception as error:  # a reader may raise anything
            reason = error.__cause__ or error  # without the text that `_LoaderNamingFiles` adds
            return self.blank(index), f"{type(reason).__name__}: {reason}"
        if not _is_index(found, index):
            return self.blank(index), _wrong_sample_error("read again", index, found)
        return sample, None

    def blank(self, index: int) -> Sequence[Any]:
        """Return the row that stands for what could not be read."""
        return self._zero - 1 - index, self._blank, self._target


class CollateWithReasons:
    """The train loader's collation for a ``TolerantDataset``: a batch and the reasons."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(
        self, pairs: Sequence[tuple[Any, str | UserError | None]]
    ) -> tuple[Any, list[str | UserError]]:
        samples, reasons = zip(*pairs)
        return self.collate_fn(list(samples)), [reason for reason in reasons if reason is not None]


def probe(dataset: Any) -> tuple[Sequence[Any], Positions]:
    """Return a sample, and where each sample is by its index.

    Raises:
        UserError: unless samples are ``(i, crops, target)``, as solo-learn's own are.
    """
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise UserError(
            "training dataset",
            expected="a map-style dataset that can be read by index",
            got=type(dataset).__name__,
            remedy=_REMEDY,
        )
    positions, size = Positions(dataset), len(dataset)
    first, sample = _first_readable(dataset)
    # An index that is right for the first samples may be wrong for later ones, in repeated or
    # joined datasets.
    others = {size * part // 4 - 1 for part in (1, 2, 3, 4)}
    for position in (first, *sorted(at for at in others if at > first)):
        try:
            probed = sample if position == first else _read(dataset, position)
        except Exception:  # not every sample has to be readable
            continue
        if not (isinstance(probed, (tuple, list)) and len(probed) == 3):
            raise UserError(
                "training dataset",
                expected="samples (index, crops, target)",
                got=f"a sample of {len(probed)} parts"
                if isinstance(probed, (tuple, list))
                else short_repr(probed),
                remedy=_REMEDY,
            )
        if not _is_index(probed[0], positions.index_at(position)):
            raise _wrong_sample_error(f"sample {position}", positions.index_at(position), probed[0])
    return sample, positions


def _wrong_sample_error(which: str, expected: int, got: Any) -> UserError:
    return UserError(
        f"training dataset, {which}",
        expected=f"(index, crops, target) with the index {expected}",
        got=short_repr(got),
        remedy=_REMEDY,
    )


def _read(dataset: Any, position: int) -> Any:
    with _global_rng_kept():
        return copied(dataset)[position]


def _first_readable(dataset: Any) -> tuple[int, Any]:
    reason: Exception | None = None
    for position in range(min(PROBES, len(dataset))):
        try:
            return position, _read(dataset, position)
        except Exception as error:
            reason = error
    raise UserError(
        "training dataset",
        expected=f"a readable sample among the first {PROBES}",
        got=f"{type(reason).__name__}: {reason}" if reason else "no sample",
        remedy="Repair or remove the files.",
    ) from reason


class _LoaderNamingFiles:
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
    for part in parts_of(dataset):
        loader = getattr(part, "loader", None)
        if callable(loader) and not isinstance(loader, _LoaderNamingFiles):
            with suppress(AttributeError):  # of a property that cannot be set
                part.loader = _LoaderNamingFiles(loader)


def _blank(crop: torch.Tensor) -> torch.Tensor:
    """Return NaN of the crop's shape in the memory of one number."""
    value = float("nan") if crop.is_floating_point() else 0
    return crop.new_full((), value).expand(crop.shape)


@contextmanager
def _global_rng_kept() -> Iterator[None]:
    """Restore the global generators after the probe, whose augmentations draw from them."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def _is_index(value: Any, index: int) -> bool:
    """Whether it is this whole number, also one of NumPy or a tensor of one, without dimensions."""
    if isinstance(value, torch.Tensor):
        whole = value.ndim == 0 and not value.is_floating_point() and value.dtype != torch.bool
    else:
        whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and bool(value == index)
