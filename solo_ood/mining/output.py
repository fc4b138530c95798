"""What is written of a ranking: lists, links to the chosen images, exemplars for a training run."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

from solo_ood.data.frames import Frames
from solo_ood.data.pixels import load
from solo_ood.data.videos import frame_of
from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.files.output import is_writable
from solo_ood.files.text import printable
from solo_ood.mining.ranking import Entry, Ranking

FILES = ("ranking.csv", "ranking.json", "ranking.parquet", "contact-sheet.jpg", "report.html")
ASK = "ask.csv"  # the images whose answer would teach most
COLUMNS: dict[str, type] = {
    **{"rank": int, "path": str, "clip": str, "frame": int, "time": float, "score": float},
    **{"percentile": float, "state": str, "representative": str, "like": int},
    **{"left": float, "top": float, "right": float, "bottom": float},
}
UNCHECKED = 20  # of the list, where there are no exemplars of the data
_RANKED = re.compile(r"\d{4,}-")


def records(ranking: Ranking, frames: Frames) -> list[dict[str, Any]]:
    """Return a row of the lists for every image; ``None`` where there is no value."""
    return [_record(entry, frames) for entry in ranking.entries]


def _record(entry: Entry, frames: Frames) -> dict[str, Any]:
    leader = entry.representative
    box = entry.box or (None,) * 4
    return {
        "rank": entry.rank,
        "path": frames.name(entry.path),
        "clip": entry.clip,
        "frame": entry.frame,
        "time": None if entry.seconds is None else round(entry.seconds, 3),
        "score": _known(entry.score),
        "percentile": _known(round(entry.percentile, 3)),
        "state": entry.state,
        "representative": None if leader is None else frames.name(leader),
        "like": entry.like,
        **dict(zip(("left", "top", "right", "bottom"), box)),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def write_lists(rows: list[dict[str, Any]], facts: dict[str, Any], folder: Path) -> list[str]:
    """Write ``ranking.csv``, ``ranking.json`` (what was asked), and ``ranking.parquet``.

    Returns:
        a note, if pyarrow is not installed.
    """
    text = json.dumps(facts, indent=1, default=str)
    (folder / "ranking.json").write_text(text + "\n", encoding="utf-8")
    (folder / "ranking.csv").write_bytes(csv_of(rows, list(COLUMNS)))
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return ["no ranking.parquet: it needs pyarrow (install solo-ood[parquet])"]
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows, schema=schema), folder / "ranking.parquet"
    )
    return []


def csv_of(rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    """Return a CSV in UTF-8, with a header; ``None`` is an empty value."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def check_link(folder: Path | None, data: Path) -> None:
    """Raise ``UserError`` unless ``folder`` is new, empty, or one of links that we made.

    It may not lie in the data: the next ranking would take its links for images.
    """
    if folder is None:
        return
    inside = data.is_dir() and folder.resolve().is_relative_to(data.resolve())
    if inside or not is_writable(folder.parent) or not (not folder.exists() or _is_ours(folder)):
        raise UserError(
            "--link",
            expected="a new folder, beside the data, that can be written",
            got=f"{folder}, {'in the data' if inside else 'which is there already'}",
            remedy="Name a new folder beside the data.",
        )


def _is_ours(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return all(path.is_symlink() and _RANKED.match(path.name) for path in folder.iterdir())


def link(ranking: Ranking, folder: Path, copies: bool) -> int:
    """Put links to the chosen images, or copies of them, into ``folder``, named by their rank.

    Frames of videos are decoded and written as PNG. The folder appears when all of them are there;
    one of our earlier links is replaced.

    Returns:
        how many.
    """
    chosen = ranking.chosen
    with atomic.replaced_folder(folder) as staged:
        for entry in chosen:
            target = staged / linked_name(entry)
            if frame_of(entry.path) is not None:
                load(entry.path).save(target)
            elif copies:
                shutil.copyfile(entry.path, target)
            else:
                target.symlink_to(entry.path.resolve())
    return len(chosen)


def linked_name(entry: Entry) -> str:
    """Return how a chosen image is called where it is linked."""
    frame = frame_of(entry.path)
    name = entry.path.name if frame is None else f"{frame[0].stem}-{entry.path.name}"
    return f"{entry.rank:04d}-{name}"


def write_for_training(ranking: Ranking, confirmed: list[Path], path: Path) -> str:
    """Write exemplars for ``dino_ood``, a path in each line; return what they are.

    Args:
        ranking: the list.
        confirmed: images of the data that are known to show what matters.
        path: of the file; ``method_kwargs.ood.scorer.exemplars=FILE`` takes it.
    """
    told = f"{len(confirmed)} exemplars of the data"
    if not confirmed:
        confirmed = [entry.path for entry in ranking.chosen[:UNCHECKED]]
        told = f"the first {len(confirmed)} of the list, which nobody has looked at yet"
    lines = b"".join(os.fsencode(item.absolute()) + b"\n" for item in confirmed)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(lines, path)
    return f"{printable(str(path))}: {told}"
