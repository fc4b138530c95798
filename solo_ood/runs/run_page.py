"""The page of a run: what its summary says, its pictures, and the images that are queued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from solo_ood.pages import plots
from solo_ood.pages.page import Page, jpeg_uri
from solo_ood.pages.parts import Cell, Column, Gallery, Table, Thumbnail, number_cell
from solo_ood.runs.summary import LABEL_WIDTH, Stream
from solo_ood.selection.selector import RareSelector

TERMS = (
    *("ood_score", "rare", "detector", "threshold", "flag rate", "Lift", "queue", "replay"),
    *("teacher", "k-NN", "linear", "Many", "Medium", "Few", "Std", "held-out", "AUROC"),
    "95 % interval",
)
# What each picture shows, in the order of the page.
CAPTIONS = {
    "curves.png": "How training went, over its steps; dashed: what a curve is to be compared with.",
    "scores.png": "Scores of the newest samples that were judged together; dashed: the threshold.",
}
EVALUATION = "evaluation.png"
SHOTS = 48


def write(
    title: str,
    lines: Sequence[str],
    selector: RareSelector | None,
    stream: Stream,
    pictures: Sequence[str],
    out: Path,
    figures: Table | None = None,
) -> Path:
    """Write ``report.html`` to the folder ``out``.

    Args:
        title: of the page.
        lines: of the summary: a label in the first columns, blank where a line goes on.
        selector: the run's detector; ``None`` = none.
        stream: the images it saw.
        pictures: paths of those that were drawn, and why others were not.
        out: the folder in which the pictures are.
        figures: of its evaluation; ``None`` = none.
    """
    facts = [(line[:LABEL_WIDTH].strip(), line[LABEL_WIDTH:]) for line in lines[1:]]
    page = Page(title, _conclusion(lines[0], facts), TERMS)
    page.heading("Summary")
    page.facts(facts)
    page.heading("Training")
    for name, caption in CAPTIONS.items():
        if str(out / name) in pictures and (out / name).is_file():
            page.picture(out / name, caption)
    missing = [text for text in pictures if Path(text).parent != out]
    if missing:
        page.listing(missing)
    if figures is not None:
        page.heading("Evaluation")
        page.table(figures)
        if str(out / EVALUATION) in pictures:
            page.picture(
                out / EVALUATION, "Accuracy by class, with 95 % intervals up to 12 classes."
            )
    if selector is not None and stream.paths:
        page.heading("Queue")
        page.table(_by_class(selector, stream))
        page.gallery(_newest_gallery(selector, stream))
    return page.save(out / "report.html")


def newest_queued(selector: RareSelector, stream: Stream, most: int) -> list[int]:
    """Return dataset indexes of the newest samples in the queue whose files are there."""
    known = [row for row in reversed(list(selector.queue)) if row < len(stream.paths)]
    return [row for row in known if stream.paths[row].is_file()][:most]


def _conclusion(first: str, facts: Sequence[tuple[str, str]]) -> list[str]:
    """Return what was trained, what the detector did, and how good the network is."""
    said = {name: text for name, text in facts if name}

    def parts(*names: str) -> str:
        return "; ".join(f"{name} {said[name]}" for name in names if name in said)

    return [
        f"Training: {first}; {parts('DINO loss', 'loss')}.",
        f"Detector: {parts('flag rate', 'queue') or said.get('detector', 'none')}.",
        f"Evaluation: {parts('k-NN, %', 'linear, %') or 'none'}.",
    ]


def _by_class(selector: RareSelector, stream: Stream) -> Table:
    labels = [stream.labels[row] for row in selector.queue if row < len(stream.labels)]
    queued, trained = Counter(labels), Counter(stream.labels)
    columns = [
        Column("Class"),
        Column("Rare class", filter=True),
        Column("Queued", number=True),
        Column("Images", number=True),
        Column("Queued, % of the class", number=True),
    ]
    rows = []
    for label, count in sorted(trained.items()):
        share = 100 * queued[label] / count
        rows.append(
            [
                Cell(stream.name(label) if label >= 0 else "unlabelled"),
                Cell("rare" if label in selector.rare_classes else "other"),
                number_cell(f"{queued[label]:,}", queued[label]),
                number_cell(f"{count:,}", count),
                number_cell(f"{share:.1f}", share),
            ]
        )
    return Table("Queued samples by class", columns, rows)


def _newest_gallery(selector: RareSelector, stream: Stream) -> Gallery:
    shots = [
        Thumbnail(
            f"{row}",
            jpeg_uri(plots.thumbnail(stream.paths[row], 320)),
            str(stream.paths[row]),
            stream.name(stream.labels[row]) if stream.labels[row] >= 0 else "unlabelled",
            f"dataset index {row}",
            stream.labels[row] in selector.rare_classes,
        )
        for row in newest_queued(selector, stream, SHOTS)
    ]
    names = ", ".join(stream.name(label) for label in selector.rare_classes)
    about = f"Newest first. Thick double frame: of a rare class ({names or 'none known'})."
    return Gallery(f"The newest {len(shots)} queued samples", about + " Click to enlarge.", shots)
