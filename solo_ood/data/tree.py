"""Which images lie below a folder, without what is hidden and what this package wrote itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from solo_ood.data.names import is_litter

Parts = tuple[str, ...]  # of a path below the folder
HIDDEN = "hidden, or made by another program"
OURS = "written by solo-ood"
LOOP = "a link to a folder above"
# Other formats, which the host does not read either; files without a suffix may be images, too.
_OTHER_IMAGES = set(
    ".gif .avif .jfif .jpe .jif .heic .heif .jp2 .j2k .jxl .pbm .pnm .pfm .tga .pcx .dds .ico .svg "
    ".raw .dng .cr2 .nef .arw .exr .hdr".split()
)
# Files by which a folder is known as our own: of `measure`, of `rank`, of a run, of its cache.
_OWN = (
    {"report.html", "table.json"},
    {"ranking.csv", "ranking.json"},
    {"args.json", "metrics.csv"},
    {"about.json", "status.npy"},
)


@dataclass(frozen=True)
class Tree:
    """Images below a folder.

    Attributes:
        root: the folder.
        images: their paths below ``root``, folder by folder.
        dirs: all folders below ``root`` that are not skipped.
        skipped: files and folders below ``root``, by reason.
        others: paths of other files in the folders.
    """

    root: Path
    images: tuple[Parts, ...]
    dirs: tuple[Parts, ...]
    skipped: dict[str, list[Parts]] = field(default_factory=dict)
    others: tuple[Parts, ...] = ()

    @property
    def folders(self) -> list[str]:
        """Names of the folders in ``root``, except those which hold nothing but our own files."""
        full = {parts[0] for parts in self.images if len(parts) > 1}
        ours = {parts[0] for parts in self.skipped.get(OURS, ())}
        return sorted({parts[0] for parts in self.dirs} - (ours - full))

    @property
    def images_in_root(self) -> list[str]:
        """Names of the images that lie in ``root`` itself."""
        return [parts[0] for parts in self.images if len(parts) == 1]

    def below(self, name: str) -> Tree:
        """Return the tree of a folder in ``root``."""
        skipped = {reason: list(_below(name, paths)) for reason, paths in self.skipped.items()}
        images, dirs, others = (
            _below(name, paths) for paths in (self.images, self.dirs, self.others)
        )
        return Tree(self.root / name, images, dirs, skipped, others)

    def suffixes(self) -> Counter[str]:
        """Count the other files by their suffixes."""
        return Counter(os.path.splitext(parts[-1])[1].lower() for parts in self.others)

    def notes(self) -> list[str]:
        """Return what was skipped, one line a reason, and which images cannot be read."""
        lines = []
        for reason, paths in self.skipped.items():
            names = ", ".join("/".join(parts) for parts in paths[:3])
            more = f" and {len(paths) - 3} more" * (len(paths) > 3)
            lines.append(f"skipped {names}{more}: {reason}")
        counts = self.suffixes()
        unread = Counter(
            {suffix: counts[suffix] for suffix in counts if suffix in {*_OTHER_IMAGES, ""}}
        )
        if unread:
            lines.append(
                f"not read: {count_text(unread)} "
                f"(image folders take {', '.join(_image_suffixes())})"
            )
        return lines


def walk(root: Path) -> Tree:
    """Return the images below ``root``, those behind links included, as an ImageFolder has them.

    A folder that is skipped is named if it lies in ``root`` or holds images.
    """
    images: list[Parts] = []
    dirs: list[Parts] = []
    skipped: dict[str, list[Parts]] = {}
    others: list[Parts] = []
    for folder, names, files in sorted_walk(root):
        here = Path(folder).relative_to(root).parts
        if here and written_by_us(files):
            skipped.setdefault(OURS, []).append(here)
            dirs.remove(here)
            names.clear()
            continue
        for name in list(names):
            reason = _skip_reason(folder, name)
            if reason is None:
                dirs.append((*here, name))
                continue
            names.remove(name)
            if not here or reason == LOOP or _has_images(Path(folder, name)):
                skipped.setdefault(reason, []).append((*here, name))
        for name in files:
            if not is_image(name):
                others += [(*here, name)] * bool(here and not is_litter(name))
            elif is_litter(name):
                skipped.setdefault(HIDDEN, []).append((*here, name))
            else:
                images.append((*here, name))
    return Tree(root, tuple(images), tuple(dirs), skipped, tuple(others))


def count_text(suffixes: Counter[str]) -> str:
    """Return how many files have which suffix, in words."""
    return ", ".join(f"{n} {suffix or 'without a suffix'}" for suffix, n in suffixes.most_common(5))


def sorted_walk(root: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    """Yield what ``os.walk`` does, in one order on all systems; names may be removed on the way."""
    for folder, names, files in os.walk(root, followlinks=True):
        names.sort()
        yield folder, names, sorted(files)


def written_by_us(files: Iterable[str]) -> bool:
    """Return whether a folder of these files is an output of this package."""
    names = set(files)
    run = "args.json" in names and any(name.endswith(".ckpt") for name in names)
    return run or any(own <= names for own in _OWN)


def is_image(name: str) -> bool:
    """Return whether an ImageFolder takes a file of this name for an image."""
    return name.lower().endswith(_image_suffixes())


def may_be_image(name: str) -> bool:
    """Return whether a file of this name may be an image, also of other formats."""
    return is_image(name) or os.path.splitext(name)[1].lower() in {*_OTHER_IMAGES, ""}


def _image_suffixes() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # seconds to import

    return IMG_EXTENSIONS


def _skip_reason(folder: str, name: str) -> str | None:
    if is_litter(name):
        return HIDDEN
    path = os.path.join(folder, name)
    if os.path.islink(path):
        target = os.path.realpath(path)
        if os.path.commonpath([target, os.path.realpath(folder)]) == target:
            return LOOP
    return None


def _has_images(folder: Path) -> bool:
    return any(is_image(name) for _, _, files in os.walk(folder) for name in files)


def _below(name: str, paths: Iterable[Parts]) -> tuple[Parts, ...]:
    return tuple(parts[1:] for parts in paths if parts[0] == name and len(parts) > 1)
