"""The page of a ranking: its scenes as thumbnails and as a table, its scores, how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from solo_ood.data.frames import Frames
from solo_ood.data.pixels import Unreadable, header
from solo_ood.mining.ranking import STATES, Entry, Ranking
from solo_ood.pages import plots
from solo_ood.pages.page import Page, jpeg_uri
from solo_ood.pages.parts import Cell, Column, Gallery, Mark, Table, Thumbnail, number_cell

SHOT_SIDE = 320  # pixels of the longer side, enlarged
SHOTS = 120  # thumbnails of a page
SHEET = 240  # images of a contact sheet
ROWS = 1000  # of the table of a page; ranking.csv has all
TERMS = ("ood_score", "rare", "scene", "detector", "exemplar", "embedding")


def conclusion(ranking: Ranking, by: str) -> list[str]:
    """Return in a few lines what the list holds; the counts add up to the number of images."""
    counts = ranking.counts()
    parts = [f"{count:,} {STATES[state]}" for state, count in counts.items()]
    return [
        f"{len(ranking.chosen):,} scenes were chosen by {by}.",
        f"{len(ranking.entries):,} images: {'; '.join(parts)}.",
    ]


def caption(entry: Entry) -> str:
    """Return the rank of a scene and how many images are like it."""
    like = f" +{entry.like:,} like it" if entry.like else ""
    return f"{entry.rank}{like}"


def contact_sheet(ranking: Ranking, frames: Frames, by: str) -> Figure:
    """Draw the first scenes."""
    shown = ranking.chosen[:SHEET]
    return plots.contact_sheet(
        [entry.path for entry in shown],
        [caption(entry) for entry in shown],
        [False] * len(shown),
        f"The first {len(shown)} of {len(ranking.chosen)} scenes by {by}",
        frames.levels,
    )


def write_page(
    ranking: Ranking,
    frames: Frames,
    by: str,
    command: str,
    notes: Sequence[str],
    folder: Path,
    lines: Sequence[str] = (),
) -> list[str]:
    """Write ``contact-sheet.jpg`` and ``report.html``; return what could not be drawn.

    ``lines`` are further conclusions, such as those of an audit.
    """
    page = Page(f"Rare images of {frames.root.name}", [*conclusion(ranking, by), *lines], TERMS)
    page.text(
        "Higher score = rarer, or more like what the exemplars show. No image was scored by a "
        "detector that has seen it, or an image of its scene. Near-duplicates stand behind the one "
        "with the highest score: “+37 like it”."
    )
    if command:
        page.code(command)
    page.listing(list(notes))
    failed = []
    sheet = folder / "contact-sheet.jpg"
    failed.append(plots.save_or_explain(lambda: contact_sheet(ranking, frames, by), sheet))
    chosen = ranking.chosen
    page.heading("Scenes")
    what = " Dashed: the region that looks most like what was marked." * any(
        entry.box for entry in chosen
    )
    page.gallery(
        Gallery(
            f"The first {min(SHOTS, len(chosen))}",
            f"By rank.{what} Click to enlarge.",
            [_thumbnail(entry, frames) for entry in chosen[:SHOTS]],
        )
    )
    page.table(_table(chosen[:ROWS], frames))
    picture = folder / "scores.png"
    why = plots.save_or_explain(lambda: _histogram(ranking), picture)
    failed.append(why)
    if why is None:
        page.heading("Scores")
        page.picture(picture, "Scores of all ranked images, and of the scenes that were chosen.")
        picture.unlink()
    page.save(folder / "report.html")
    return [text for text in failed if text]


def _thumbnail(entry: Entry, frames: Frames) -> Thumbnail:
    return Thumbnail(
        f"{entry.rank}",
        jpeg_uri(plots.thumbnail(entry.path, SHOT_SIDE, frames.levels)),
        frames.name(entry.path),
        caption(entry),
        f"ood_score {entry.score:.4g}",
        False,
        _marks(entry),
    )


def _marks(entry: Entry) -> list[Mark]:
    """Return the evidence box in % of the image."""
    if entry.box is None:
        return []
    try:
        image = header(entry.path)
    except Unreadable:
        return []
    left, top, right, bottom = entry.box
    across, down = 100 / image.width, 100 / image.height
    width, height = (right - left) * across, (bottom - top) * down
    return [(round(left * across, 2), round(top * down, 2), round(width, 2), round(height, 2))]


def _table(chosen: Sequence[Entry], frames: Frames) -> Table:
    heads = [Column("rank", True), Column("path"), Column("clip", filter=len(_clips(chosen)) > 1)]
    heads += [Column("ood_score", True), Column("percentile", True), Column("like it", True)]
    rows = [
        [
            number_cell(f"{entry.rank}", entry.rank),
            Cell(frames.name(entry.path)),
            Cell(entry.clip),
            number_cell(f"{entry.score:.4g}", entry.score),
            number_cell(f"{entry.percentile:.2f}", entry.percentile),
            number_cell(f"{entry.like}", entry.like),
        ]
        for entry in chosen
    ]
    return Table(f"The first {len(rows)} scenes; ranking.csv has every image", heads, rows)


def _clips(chosen: Sequence[Entry]) -> set[str]:
    return {entry.clip for entry in chosen}


def _histogram(ranking: Ranking) -> Figure:
    scores = plots.finite([entry.score for entry in ranking.entries])
    chosen = plots.finite([entry.score for entry in ranking.chosen])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    edges = plots.bin_edges(scores, 50)
    axis.hist(scores, edges, color=plots.COMMON, label=f"all {len(scores):,} ranked images")
    axis.hist(np.asarray(chosen), edges, color=plots.RARE, label=f"{len(chosen):,} scenes chosen")
    axis.set(xlabel=plots.SCORE_AXIS, ylabel="images (number in a bin)", yscale="log")
    plots.legend(figure)
    return figure
