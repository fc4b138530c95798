"""Checks the folders of a run: that they exist and that the host can read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict
from torchvision.datasets.folder import IMG_EXTENSIONS

from solo_ood.data.folders import classes_note
from solo_ood.data.names import look_like_splits
from solo_ood.data.training_folder import check_training_folder
from solo_ood.errors import UserError, short_repr

KEYS = ("data.train_path", "data.val_path")
DOWNLOADED = {"cifar10": 50_000, "cifar100": 50_000, "stl10": 105_000}  # training samples


PATHS = (
    *("data.train_path", "data.val_path", "data.tail_path", "checkpoint.dir"),
    *("resume_from_checkpoint", "pretrained_feature_extractor"),
)


def expand_home(cfg: DictConfig) -> None:
    """Write the home folder for ``~`` in the paths of ``cfg``: no shell does there."""
    for key in PATHS:
        value = OmegaConf.select(cfg, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(cfg, key, os.path.expanduser(value))


def read_exemplars(cfg: DictConfig) -> None:
    """Put the lines of a file, as ``solo-ood rank --for-training`` writes it, for its name.

    Raises:
        UserError: if ``ood.scorer.exemplars`` names a file that cannot be read, or is empty.
    """
    key = "method_kwargs.ood.scorer.exemplars"
    given = OmegaConf.select(cfg, key)
    if not isinstance(given, str):
        return
    try:
        text = os.fsdecode(Path(os.path.expanduser(given)).read_bytes())
        got = f"{given}, which is empty"
    except (OSError, ValueError) as error:
        text, got = "", f"{short_repr(given)}: {error}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(
            "ood.scorer.exemplars",
            expected="a list, or a file with the path or index of an image in each line",
            got=got,
            remedy="Let solo-ood rank write one (--for-training), or give "
            f'"{key}=[12,57,rider/a.jpg]".',
        )
    OmegaConf.update(cfg, key, [int(line) if line.isdigit() else line for line in lines])


def check_data(cfg: DictConfig) -> None:
    """Raise ``UserError`` for a folder that is missing or that the host cannot read."""
    if OmegaConf.select(cfg, "data.dataset") in DOWNLOADED:
        return
    for key in KEYS:  # all of them before any folder is looked at
        if OmegaConf.is_missing(cfg.data, key.removeprefix("data.")):
            leave_out = ", or null for no validation" if key == "data.val_path" else ""
            raise UserError(
                key,
                expected="the path of your data",
                got="none",
                remedy=f"Give it: {key}=PATH, a folder with a folder for each class{leave_out}.",
            )
    for key in KEYS:
        path = OmegaConf.select(cfg, key)
        if key == "data.val_path" and path is None:
            continue  # no validation
        is_file = path is not None and OmegaConf.select(cfg, "data.format") == "h5"
        if path is None or not (Path(path).is_dir() or (is_file and Path(path).is_file())):
            raise _no_folder(key, path, f"{key}=PATH (an ImageFolder for data.dataset=custom)")
        if OmegaConf.select(cfg, "data.format") == "h5":
            continue
        no_labels = bool(OmegaConf.select(cfg, "data.no_labels"))
        if key == "data.val_path" and no_labels:
            continue  # the host validates on nothing then
        if OmegaConf.select(cfg, "data.dataset") in ("custom", "imagenet", "imagenet100"):
            check_training_folder(Path(path), key, no_labels)
        if not no_labels:
            _check_classes(key, Path(path))
            names = [folder.name for folder in _class_folders(Path(path))]
            if look_like_splits(names):
                _print_once(f"{path}: {classes_note(names)}.")


@cache
def _print_once(line: str) -> None:
    """Print the line, once: the release checks a config before and in its program."""
    print(line)


def check_labelled_folder(path: str, option: str) -> None:
    """Raise ``UserError`` unless ``path`` is a folder of class folders as the host reads them.

    Args:
        path: an ImageFolder.
        option: what names it, of a program without a config or beside the host's own keys.
    """
    if not Path(path).is_dir():
        mark = " " if option.startswith("-") else "="
        raise _no_folder(option, path, f"{option}{mark}PATH (an ImageFolder)")
    check_training_folder(Path(path), option)
    _check_classes(option, Path(path))


def _no_folder(key: str, path: str | None, how: str) -> UserError:
    return UserError(key, expected="an existing folder", got=path, remedy=f"Set it: {how}.")


def accept_flat_folder(cfg: DictConfig) -> None:
    """Set ``data.no_labels`` for training images that lie directly in their folder, and say so."""
    path = OmegaConf.select(cfg, "data.train_path")
    if (
        OmegaConf.select(cfg, "data.dataset") == "custom"
        and OmegaConf.select(cfg, "data.format") in (None, "image_folder")
        and not OmegaConf.select(cfg, "data.no_labels")
        and OmegaConf.select(cfg, "method") is not None  # linear evaluation needs the labels
        and OmegaConf.select(cfg, "pretrained_feature_extractor") is None
        and isinstance(path, str)
        and Path(path).is_dir()
        and _is_flat(Path(path))
    ):
        with open_dict(cfg):
            cfg.data.no_labels = True
        print(f"{path}: images without class folders, taken as data.no_labels=True.")


def count_samples(cfg: DictConfig, at_most: int) -> int | None:
    """Return the number of training samples, counted up to ``at_most``; ``None`` = not known."""
    dataset, path = OmegaConf.select(cfg, "data.dataset"), OmegaConf.select(cfg, "data.train_path")
    fraction = OmegaConf.select(cfg, "data.fraction") or -1
    share = fraction if 0 < fraction < 1 else 1
    if dataset in DOWNLOADED:
        return int(DOWNLOADED[dataset] * share)
    if path is None or not Path(path).is_dir():
        return None
    if OmegaConf.select(cfg, "data.no_labels"):
        return int(len(os.listdir(path)) * share)
    images = (image for folder in _class_folders(Path(path)) for image in _images_below(folder))
    return int(sum(1 for _ in islice(images, int(at_most / share) + 1)) * share)


def _check_classes(key: str, path: Path) -> None:
    """Raise unless ``path`` has class folders, each with an image, as an ImageFolder must."""
    classes = _class_folders(path)
    if not classes:
        flat = _is_flat(path)
        raise UserError(
            key,
            expected="a folder of each class",
            got=f"{path} with images only" if flat else f"{path} without any",
            remedy="For unlabelled images set data.no_labels=True."
            if flat and key == "data.train_path"
            else "Give the folder that holds the class folders.",
        )
    empty = [folder.name for folder in classes if next(_images_below(folder), None) is None]
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise UserError(
            key,
            expected="images in each class folder (" + ", ".join(IMG_EXTENSIONS) + ")",
            got=f"none in {', '.join(empty[:3])}{more} of {path}",
            remedy="Remove the empty folders, or convert the images.",
        )


def _class_folders(path: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(path) if entry.is_dir())


def _images_below(folder: Path) -> Iterator[str]:
    for _, _, names in os.walk(folder, followlinks=True):
        yield from filter(_is_image, names)


def _is_flat(path: Path) -> bool:
    entries = list(os.scandir(path))
    return not any(e.is_dir() for e in entries) and any(_is_image(e.name) for e in entries)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)
