"""Training images of other kinds: torchvision's loader turns those of more than 8 bits white."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from solo_ood.data.pixels import Levels, load
from solo_ood.data.survey import evenly_spaced, survey
from solo_ood.replay.rows import paths_of

LOOKED_AT = 100  # images of a data set, evenly spread


def show_all_bits(*datasets: Any) -> list[str]:
    """Let folders scale images of more than 8 bits, all by one range; return what was done.

    Data without such images are read as before, as stock DINO reads them; what `solo-ood`'s
    commands would show otherwise is said. To be called before workers hold the datasets.
    """
    from torchvision.datasets.folder import default_loader

    known = [(dataset, paths) for dataset in map(_inner, datasets) if (paths := paths_of(dataset))]
    seen = survey(*(evenly_spaced(list(map(Path, paths)), LOOKED_AT) for _, paths in known))
    if not seen.has_deep:
        return [
            f"training images: {note}, as solo-learn reads them; solo-ood's commands do not"
            for note in seen.as_stored
        ]
    said = []
    for dataset, _ in known:
        if getattr(dataset, "loader", None) is default_loader:
            dataset.loader = partial(load, levels=seen.levels)
            said = [f"training images: {seen.notes[0]}"]
        elif "CustomDatasetWithoutLabels" in _class_names(dataset):
            _scale(dataset, seen.levels)
            said = [f"training images: {seen.notes[0]}"]
        elif not hasattr(dataset, "loader"):  # of the user's own
            return [
                "training images have more than 8 bits, and this data set shows all above 255 as "
                "white: store them with 8 bits"
            ]
    return said


def _class_names(dataset: Any) -> list[str]:
    return [cls.__name__ for cls in type(dataset).__mro__]


def _scale(dataset: Any, levels: Levels) -> None:
    """Let solo-learn's folder without classes, which has no loader to set, scale its images.

    Its loader holds it and takes no other: it stays the same object, of a class of its class.
    """
    indexed = "DatasetWithIndex" in _class_names(dataset)

    class Scaled(type(dataset)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            image = load(self.root / self.images[index], levels)
            sample = (image if self.transform is None else self.transform(image), -1)
            return (index, *sample) if indexed else sample

    if "Scaled" not in _class_names(dataset):
        dataset.__class__ = Scaled


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
