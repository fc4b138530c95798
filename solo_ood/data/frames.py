"""Unlabelled images: a folder of any depth, a list, BDD100K's layout, videos; and their clips."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from solo_ood.data import bdd, lists
from solo_ood.data.clips import clips_of
from solo_ood.data.images import Split
from solo_ood.data.labels import file_key
from solo_ood.data.layouts import label_folders
from solo_ood.data.names import is_litter
from solo_ood.data.order import natural_key
from solo_ood.data.pixels import Levels
from solo_ood.data.shots import expanded
from solo_ood.data.tree import Parts, Tree, is_image, walk
from solo_ood.data.videos import is_video
from solo_ood.errors import UserError
from solo_ood.files.text import few, printable, user_path

LISTS = (".txt", *lists.SUFFIXES, ".parquet")
_FEW = 3


@dataclass(frozen=True)
class Frames:
    """Images without labels, neighbours beside each other.

    Attributes:
        root: below which they lie; they are shown by their paths from there.
        paths: N files, each once.
        clips: of each the clip (a drive, a folder, a video) that it is from; "" = not known.
        layout: ``folder``, ``list``, ``bdd`` or ``video``.
        notes: what a reader should know of how they were read.
        missing: files of a list that are not there.
        levels: black and white of images with more than 8 bits; ``None`` = not looked at.
        seconds: of frames of videos, from the start of their video; of no other images.
    """

    root: Path
    paths: tuple[Path, ...]
    clips: tuple[str, ...]
    layout: str
    notes: tuple[str, ...] = ()
    missing: tuple[Path, ...] = ()
    levels: Levels | None = field(default=None, compare=False)
    seconds: Mapping[Path, float] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, path: Path) -> str:
        """Return a path as it is shown and written: from ``root``, in characters of UTF-8."""
        # By text: of 100,000 images pathlib would take seconds.
        text, root = str(path), str(self.root)
        if text == root:
            return "."
        return printable(text.removeprefix(os.path.join(root, "")))

    @property
    def split(self) -> Split:
        """The images, for what embeds: without classes."""
        empty = np.zeros((len(self.paths), 0), dtype=np.float32)
        return Split(self.paths, empty, (), levels=self.levels)


def layout_of(root: Path) -> str:
    """Return how images at ``root`` are given: ``folder``, ``list``, ``bdd`` or ``video``.

    Raises:
        UserError: if there is nothing that could be.
    """
    if root.is_file() and root.suffix.lower() in LISTS:
        return "list"
    if root.is_file() and is_video(root):
        return "video"
    if root.is_dir():
        return "bdd" if bdd.locate(root) is not None else "folder"
    got = f"{root}, a file of another kind" if root.exists() else f"no file or folder {root}"
    raise UserError(
        "frames",
        expected=f"a folder of images or videos, a list of them ({', '.join(LISTS)}), or a video",
        got=got,
        remedy=f"Check its spelling; relative paths count from {Path.cwd()}.",
    )


def read_frames(root: Path, clip_pattern: str | None = None, fps: float | None = None) -> Frames:
    """Return the images at ``root``, see ``layout_of``; the order of a list is kept.

    Clips are told by ``clip_pattern``, else by the column ``clip`` of a list, else by folders where
    there are several. In BDD100K's layout every image is from a video of its own. The frames of a
    video are images below it, and it is their clip.

    Args:
        root: a folder; a ``.txt`` with a path in each line; a ``.csv``, ``.tsv`` or ``.parquet``
            with a column ``path``; a video. Relative paths count from the folder of the list.
        clip_pattern: a regular expression that is looked for in each file's name without its
            suffix; its first group, or all that it matches, is the clip.
        fps: frames of a video to look at, at most so many a second; ``None`` = all.

    Raises:
        UserError: if there are no images, the pattern is none or fits no name, PyAV is needed and
            not there, or no video can be read.
    """
    layout = layout_of(root)
    clips: Sequence[str] = ()
    notes: list[str] = []
    base = root
    if layout == "list":
        found, clips = _of_list(root)
        base = root.parent
    elif layout == "video":
        found, base = [root], root.parent
    else:
        found, notes = _of_folder(root, layout)
    there, missing = _present(zip(found, clips or [""] * len(found)))
    once = _once(there)
    if len(once) < len(there):
        notes.append(f"{len(there) - len(once)} paths name files that are there already")
    if not once:
        raise _no_images(root, layout, missing)
    shots = expanded([path for path, _ in once], fps)
    of_file = dict(once)
    paths = shots.paths
    told = tuple(of_file[source] for source in shots.sources)
    frames = Frames(base, paths, told, layout, (), tuple(missing), seconds=shots.seconds)
    clips, clip_notes = clips_of(frames, clip_pattern)
    notes += [*shots.notes, *clip_notes, *_gone(missing)]
    return replace(frames, clips=tuple(clips), notes=tuple(notes))


def _of_folder(root: Path, layout: str) -> tuple[list[Path], list[str]]:
    """Return the images below a folder, or its videos where there are no images; and notes."""
    inside = root
    if layout == "bdd":
        located = bdd.locate(root) or root
        inside = (bdd.find_layout(located) or (root,))[0]
    tree = walk(inside)
    names, left_out = _without_labels(tree)
    notes = tree.notes() + left_out
    videos = _videos(tree)
    if videos and not names:
        names = tuple(videos)
    elif videos:
        notes.append(
            f"{len(videos)} videos are left out, beside images: give a folder of videos alone, or "
            "a list"
        )
    return sorted((inside.joinpath(*parts) for parts in names), key=natural_key), notes


def _videos(tree: Tree) -> list[Parts]:
    """Return the paths of the videos below a folder, without what is hidden."""
    found = []
    for parts in ((), *tree.dirs):
        with suppress(OSError):  # a folder that may not be entered
            names = os.listdir(tree.root.joinpath(*parts))
            found += [(*parts, name) for name in names if is_video(name) and not is_litter(name)]
    return found


def _present(rows: Iterable[tuple[Path, str]]) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Return the files that are there, and those that are not."""
    there, missing = [], []
    for path, clip in rows:
        if os.path.isfile(path):  # `Path.is_file` raises where a folder may not be entered
            there.append((path, clip))
        else:
            missing.append(path)
    return there, missing


def _without_labels(tree: Tree) -> tuple[Sequence[Parts], list[str]]:
    """Return the images that are not in folders of masks, and a note of these."""
    labels = label_folders(tree.dirs)
    inside = [
        image for image in tree.images if any(image[: len(parts)] == parts for parts in labels)
    ]
    if len(inside) in (0, len(tree.images)):
        return tree.images, []
    images = sorted(set(tree.images) - set(inside))
    names = few(["/".join(parts) for parts in labels], _FEW)
    return images, [f"{len(inside)} images left out in {names}: by name the labels of others"]


def _of_list(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files that a list names, and their clips where it has that column."""
    suffix = path.suffix.lower()
    clips: list[str] = []
    if suffix == ".txt":
        try:
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        except OSError as error:
            remedy = "Check that you may read it."
            raise UserError(str(path), expected="a list", got=str(error), remedy=remedy) from error
        names = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    elif suffix == ".parquet":
        names, clips = _of_parquet(path)
    else:
        rows = [row for _, row in lists.read_csv(path, ("path",))]
        names = [row["path"] for row in rows]
        clips = [row["clip"] for row in rows] if "clip" in rows[0] else []
    return [path.parent / user_path(name) for name in names], clips


def _of_parquet(path: Path) -> tuple[list[str], list[str]]:
    pyarrow = parquet_library(str(path))
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        remedy = "Write it again, or give a CSV."
        raise UserError(str(path), expected="Parquet", got=str(error), remedy=remedy) from error
    columns = {name.lower(): name for name in table.column_names}
    names = [] if "path" not in columns else table.column(columns["path"]).to_pylist()
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(
            path.name,
            expected="a column path with a text in every row",
            got=f"{table.num_rows} rows with the columns {sorted(table.column_names)}",
            remedy="Name the column of the files path.",
        )
    if "clip" not in columns:
        return names, []
    clips = table.column(columns["clip"]).to_pylist()
    return names, ["" if clip is None else str(clip) for clip in clips]


def parquet_library(what: str) -> Any:
    """Return pyarrow with its module ``parquet``.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            what,
            expected="the package pyarrow, which reads Parquet",
            got="none",
            remedy="Install solo-ood[parquet], or give a CSV.",
        ) from error
    return pyarrow


def _once(rows: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
    kept: dict[object, tuple[Path, str]] = {}
    for path, clip in rows:
        kept.setdefault(file_key(path), (path, clip))
    return list(kept.values())


def _gone(missing: Sequence[Path]) -> list[str]:
    if not missing:
        return []
    names = ", ".join(path.name for path in missing[:_FEW]) + ", …" * (len(missing) > _FEW)
    return [f"{len(missing)} left out, no such file ({names})"]


def _no_images(root: Path, layout: str, missing: Sequence[Path]) -> UserError:
    if layout == "list":
        got = f"none of {len(missing)} files, the first {missing[0]}" if missing else "no path"
        return UserError(
            str(root),
            expected="a list of images that are there",
            got=got,
            remedy="Relative paths count from the folder of the list.",
        )
    names = [name for _, _, files in os.walk(root) for name in files]
    kinds = sorted({os.path.splitext(name)[1].lower() for name in names if not is_image(name)})
    return UserError(
        f"frames {root}",
        expected="images, such as .jpg and .png, or videos, in it or below it",
        got=f"none among {len(names)} files" + f" ({', '.join(kinds[:5])})" * bool(kinds),
        remedy="Give the folder that holds them; convert what is of another format.",
    )
