"""Layouts of sets for detection and segmentation: their folders are no classes."""

from __future__ import annotations

from collections.abc import Iterable

from solo_ood.data.names import normalise_name

# Parts of layouts for detection and segmentation: they hold images or labels, but are no classes.
_IMAGES = {
    *("images", "image", "img", "imgs", "jpegimages", "leftimg8bit", "10k", "100k"),
}
_LABELS = {
    *("labels", "annotations", "annotation", "masks", "bboxes", "imagesets", "gtfine", "gtcoarse"),
    *("sem_seg", "color_labels", "colormaps", "ground_truth", "groundtruth", "label_images"),
    *("segmentationclass", "segmentationobject", "segmentations"),
}
# Possible class names, unless images lie beside them.
_MAYBE_LABELS = {"label", "mask", "seg", "segmentation", "gt", "boxes"}

# Folders that identify a layout, and the remedy.
_LAYOUTS = (
    (
        {"jpegimages", "annotations"},
        "Pascal VOC's",
        "Write a CSV of path,label from the lists in ImageSets/Main.",
    ),
    (
        {"leftimg8bit", "gtfine"},
        "Cityscapes'",
        "Link the images to images/10k/{train,val}/NAME.png and their ..._labelTrainIds.png to "
        "labels/sem_seg/masks/{train,val}/NAME.png (BDD100K's layout).",
    ),
    (
        {"images", "labels"},
        "that of detection or segmentation, such as YOLO's or BDD100K's",
        "",
    ),
)


def label_folders(dirs: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return those of the folders, given by the parts of their paths, that hold labels by name."""
    beside: dict[tuple[str, ...], set[str]] = {}
    for parts in (dirs := list(dirs)):
        beside.setdefault(parts[:-1], set()).add(normalise_name(parts[-1]).casefold())
    return [
        parts
        for parts in dirs
        if (name := normalise_name(parts[-1]).casefold()) in _LABELS
        or (name in _MAYBE_LABELS and not _IMAGES.isdisjoint(beside[parts[:-1]]))
    ]


def layout_parts(names: list[str]) -> list[str]:
    """Return those of the names of folders that are parts of a layout and not classes."""
    folded = {name: normalise_name(name).casefold() for name in names}
    known = _IMAGES | _LABELS
    if any(name in _IMAGES for name in folded.values()):
        known = known | _MAYBE_LABELS
    return [name for name in names if folded[name] in known]


def looks_like(names: Iterable[str]) -> str:
    """Return which layout has folders of these names, in brackets; "" if none is known."""
    layout = _layout(names)[0]
    return f" (it looks like {layout})" if layout else ""


def layout_remedy(names: Iterable[str]) -> str:
    """Return what to do with a layout, "" if nothing special."""
    return _layout(names)[1]


def _layout(names: Iterable[str]) -> tuple[str, str]:
    folded = {normalise_name(name).casefold() for name in names}
    found = ((layout, remedy) for known, layout, remedy in _LAYOUTS if known <= folded)
    return next(found, ("", ""))
