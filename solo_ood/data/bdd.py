"""BDD100K's layout on disk: images, semantic masks, and the pixels of each class."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

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
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def pair(root: Path, split: str) -> tuple[list[Path], list[Path], dict[str, list[str]]]:
    """Return the images of a split, their masks, and the names of those without partner.

    A mask has its image's name, ``.png``, with or without ``_train_id`` before it.

    Raises:
        UserError: for a missing folder, or one where no image has a mask.
    """
    folders = (root / "images" / "10k" / split, root / "labels" / "sem_seg" / "masks" / split)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                "BDD100K's layout",
                expected=f"the folder {folder.relative_to(root)}",
                got=f"none below {root}",
                remedy="Unpack images and semantic segmentation labels of BDD10K there.",
            )
    images = [path for path in folders[0].iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    images.sort(key=natural_key)
    masks = {path.stem.removesuffix("_train_id"): path for path in sorted(folders[1].glob("*.png"))}
    stems = {path.stem for path in images}
    paired = [path for path in images if path.stem in masks]
    left_out = {
        "image without a mask": [path.name for path in images if path.stem not in masks],
        "mask without an image": [path.name for stem, path in masks.items() if stem not in stems],
    }
    if not paired:
        raise UserError(
            f"split {split}",
            expected="images with masks of the same name",
            got=f"{len(images)} images and {len(masks)} masks, none of them a pair",
            remedy="Name the masks after their images.",
        )
    return paired, [masks[p.stem] for p in paired], {k: v for k, v in left_out.items() if v}


def pixel_shares(masks: Sequence[Path], what: str) -> tuple[np.ndarray, dict[str, str]]:
    """Return (N, 19) float32, the share of all pixels of each class, and what is wrong by mask.

    The share is of all pixels of the image, void ones included. A mask that cannot be used has a
    row of zeros. Masks are decoded by threads, with a progress bar.
    """
    from tqdm import tqdm

    shares = np.zeros((len(masks), len(CLASSES)), dtype=np.float32)
    bad: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:
        counted = pool.map(_count, masks)
        bar = tqdm(counted, total=len(masks), desc=what, unit="mask", leave=False)
        for row, (mask, (share, problem)) in enumerate(zip(masks, bar)):
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
    if ids.ndim != 2 or ids.dtype != np.uint8:
        return None, "not of one 8-bit channel"
    counts = np.bincount(ids.ravel(), minlength=VOID + 1)
    foreign = np.flatnonzero(counts[len(CLASSES) : VOID]) + len(CLASSES)
    if len(foreign):
        return None, f"with ids outside 0-{len(CLASSES) - 1} and {VOID}"
    return counts[: len(CLASSES)] / ids.size, None
