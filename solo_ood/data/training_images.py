"""Training images of more than 8 bits, all of which torchvision's loader turns white."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from solo_ood.data.pixels import load
from solo_ood.data.rows import paths_of
from solo_ood.data.survey import spread, survey

LOOKED_AT = 100  # images of a data set, evenly spread


def show_all_bits(*datasets: Any) -> list[str]:
    """Let ImageFolders scale images of more than 8 bits, all by one range; return what was done.

    Data without such images are read as before. To be called before workers hold the datasets.
    """
    from torchvision.datasets.folder import default_loader

    known = [(one, paths) for one in map(_inner, datasets) if (paths := paths_of(one))]
    seen = survey(*(spread(list(map(Path, paths)), LOOKED_AT) for _, paths in known))
    if not seen.has_deep:
        return []
    said = []
    for dataset, _ in known:
        if getattr(dataset, "loader", None) is default_loader:
            dataset.loader = partial(load, levels=seen.levels)
            said = [f"training images: {seen.notes[0]}"]
        elif not hasattr(
            dataset, "loader"
        ):  # solo-learn's folder without classes opens them itself
            return [
                "training images have more than 8 bits, and this data set shows all above 255 as "
                "white: store them with 8 bits"
            ]
    return said


def datasets_of(trainer: Any) -> Iterator[Any]:
    """Yield the datasets of the train loader and of the validation loaders, as far as known."""
    loops = (trainer.fit_loop, getattr(trainer.fit_loop.epoch_loop, "val_loop", None))
    for loop in loops:
        loaders = getattr(getattr(loop, "_data_source", None), "instance", None)
        for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
            dataset = getattr(loader, "dataset", None)
            if dataset is not None:
                yield dataset


def _inner(dataset: Any) -> Any:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset
