"""BDD100K's layout on disk: images, semantic masks, and the pixels of each class."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from solo_ood.data.names import is_litter
from solo_ood.data.order import natural_key
from solo_ood.data.pixels import Unreadable, load_ids
from solo_ood.errors import UserError

# The 19 train ids of Cityscapes and BDD100K (Yu et al., 2020, arXiv:1805.04687).
CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
    *("motorcycle", "bicycle"),
)
VOID = 255
COLOURED = "of colours, not of one 8-bit channel of ids"
LABEL_IDS = "with ids up to 33: these look like label ids, not train ids"
# What to do about a mask that cannot be used.
REMEDIES = {
    COLOURED: "Give the masks of train ids (labels/sem_seg/masks, seg/labels), not those of "
    "colours (colormaps, color_labels, ..._train_color.png).",
    LABEL_IDS: "Give the masks of train ids: BDD100K's own, or Cityscapes' after its script "
    "createTrainIdLabelImgs (..._labelTrainIds.png).",
}
LARGEST_LABEL_ID = 33  # of Cityscapes, whose train ids are 19 of its labels
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Folders of images and of masks: today's, the older one's, and that of what lies in `seg`.
LAYOUTS = (
    ("images/10k", "labels/sem_seg/masks"),
    ("seg/images", "seg/labels"),
    ("images/100k", "labels/sem_seg/masks"),
    ("images", "labels"),
)
_PARTS = {part for layout in LAYOUTS for folder in layout for part in folder.split("/")}
_COLOURS = ("colormaps", "color_labels")  # masks to look at, beside those of ids


def find_layout(root: Path) -> tuple[Path, Path] | None:
    """Return the folders of images and of masks below ``root``; ``None`` in another layout."""
    for images, masks in LAYOUTS[:-1]:
        if (root / images).is_dir():
            return root / images, root / masks
    images, masks = LAYOUTS[-1]  # common to many data sets, whose ids are others
    found = list(filter(_is_mask, _visible_entries(root / masks / "train")))
    ours = root.resolve().name == "seg" or (root / "color_labels").is_dir()
    if (root / images / "train").is_dir() and found:
        if ours or any(path.stem.endswith("_train_id") for path in found):
            return root / images, root / masks
    return None


def locate(root: Path) -> Path | None:
    """Return ``root``, or the only folder in it that has the layout; ``None`` if there is none.

    Raises:
        UserError: if several have it, or if ``root`` is a part of one.
    """
    if find_layout(root) is not None:
        return root
    whole = root.resolve()
    for above in list(whole.parents)[:4]:
        inside = whole.relative_to(above).parts
        if inside[0] in _PARTS and {*inside} <= {*_PARTS, *_COLOURS, "train", "val", "test"}:
            if find_layout(above) is not None:
                raise UserError(
                    "data",
                    expected="the folder that holds images and labels in BDD100K's layout",
                    got=f"{root}, a part of it",
                    remedy=f"Give {above}.",
                )
    folders = [root]
    for _ in range(2):
        inner = [path for folder in folders for path in _visible_entries(folder) if path.is_dir()]
        found = [path for path in inner if find_layout(path) is not None]
        if len(found) > 1:
            raise UserError(
                "data",
                expected="one folder in BDD100K's layout",
                got=f"{root}, which holds {', '.join(path.name for path in found[:4])}",
                remedy="Give one of them.",
            )
        if found or len(inner) != 1:
            return found[0] if found else None
        folders = inner
    return None


def pair_images_and_masks(
    root: Path, split: str
) -> tuple[list[Path], list[Path], dict[str, list[str]]]:
    """Return the images of a split, their masks, and the names of those without partner.

    A mask has its image's name, ``.png``, with or without ``_train_id`` before it.

    Raises:
        UserError: for a missing folder, or one where no image has a mask.
    """
    bases = find_layout(root) or tuple(root / folder for folder in LAYOUTS[0])
    folders = [base / split for base in bases]
    for folder in folders:
        if not folder.is_dir():
            beside = [
                path for path in _visible_entries(folder.parent.parent) if path.name in _COLOURS
            ]
            colours = f", but {beside[0].name}, which hold colours and no ids" if beside else ""
            raise UserError(
                "BDD100K's layout",
                expected=f"the folder {folder.relative_to(root)}",
                got=f"none below {root}{colours}",
                remedy="Unpack images and semantic segmentation labels of BDD10K there.",
            )
    images = [
        path for path in _visible_entries(folders[0]) if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    images.sort(key=natural_key)
    found = sorted(filter(_is_mask, _visible_entries(folders[1])))
    masks = {path.stem.removesuffix("_train_id"): path for path in found}
    stems = {path.stem for path in images}
    paired = [path for path in images if path.stem in masks]
    left_out = {
        "image without a mask": [path.name for path in images if path.stem not in masks],
        "mask without an image": [path.name for stem, path in masks.items() if stem not in stems],
    }
    if not paired:
        coloured = bool(masks) and all(stem.endswith("_train_color") for stem in masks)
        raise UserError(
            f"split {split}",
            expected="images with masks of the same name",
            got=f"{len(images)} images and {len(masks)} masks, none of them a pair",
            remedy=REMEDIES[COLOURED]
            if coloured
            else "Name the masks after their images, with _train_id before .png or without; "
            "BDD100K has masks for the images of 10k, not for those of 100k.",
        )
    return paired, [masks[p.stem] for p in paired], {k: v for k, v in left_out.items() if v}


def mask_beside(image: Path) -> Path | None:
    """Return the mask of an image in BDD100K's layout; ``None`` if it has none."""
    for above in image.absolute().parents:
        found = find_layout(above)
        if found is not None and image.absolute().is_relative_to(found[0]):
            folder = found[1] / image.absolute().relative_to(found[0]).parent
            names = (f"{image.stem}{end}.png" for end in ("", "_train_id"))
            return next((folder / name for name in names if (folder / name).is_file()), None)
    return None


def _visible_entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, if it is there, and is not hidden."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not is_litter(path.name))


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def pixel_shares(masks: Sequence[Path], what: str) -> tuple[np.ndarray, dict[str, str]]:
    """Return (N, 19) float32, the share of all pixels of each class, and what is wrong by mask.

    The share is of all pixels of the image, void ones included. A mask that cannot be used has a
    row of zeros. Masks are decoded by threads, with a progress bar.
    """
    from solo_ood.console import counting_bar

    shares = np.zeros((len(masks), len(CLASSES)), dtype=np.float32)
    bad: dict[str, str] = {}
    with ThreadPoolExecutor() as pool, counting_bar(len(masks), what, "mask") as bar:
        counted = pool.map(_count, masks)
        for row, (mask, (share, problem)) in enumerate(zip(masks, counted)):
            bar.update()
            if problem is not None:
                bad[str(mask)] = problem
            else:
                shares[row] = share
    return shares, bad


def _count(mask: Path) -> tuple[np.ndarray | None, str | None]:
    try:
        ids = load_ids(mask)
    except Unreadable:
        return None, "not readable"
    if ids.ndim == 3:
        return None, COLOURED
    if ids.ndim != 2 or ids.dtype != np.uint8:
        return None, "not of one 8-bit channel"
    counts = np.bincount(ids.ravel(), minlength=VOID + 1)
    foreign = np.flatnonzero(counts[len(CLASSES) : VOID]) + len(CLASSES)
    if len(foreign) and foreign[-1] <= LARGEST_LABEL_ID:
        return None, LABEL_IDS
    if len(foreign):
        return None, f"with ids outside 0-{len(CLASSES) - 1} and {VOID}"
    return counts[: len(CLASSES)] / ids.size, None
