"""What reports draw alike: thumbnails, sheets of them, histograms, curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # not pyplot: files need no display and no global state
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from solo_ood.data.pixels import Levels, Unreadable, load
from solo_ood.files.text import printable

# Colours that the colour-blind tell apart (Okabe and Ito, 2008); what differs in colour differs in
# line, marker or frame, too. pages/templates/style.css has the same.
RARE, COMMON = "#d55e00", "#56b4e9"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINES = ("-", "--", "-.", ":")
SCORE_AXIS = "ood_score (no unit; higher = rarer)"
# Axis names with units of what training logs.
CURVE_AXES = {
    "dino_loss_step": "DINO loss (nats)",
    "ood/flag_rate": "flag rate (share)",
    "ood/lift": "lift (times random)",
    "ood/queue_fill": "queue fill (share)",
    "ood/distinct_replayed": "replayed (samples)",
    "ood/replays_per_sample": "replays (per sample)",
    "ood/share_released": "released (share)",
    "val_acc1": "val_acc1 (%)",
}


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the ``number``-th line; 28 differ."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": LINES[number % len(LINES)]}


def legend(figure: Figure, **options: Any) -> None:
    """Add the one legend of a figure, each label once, beside the panels so that it covers none."""
    found: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            found.setdefault(label, handle)
    if found:
        options = {"loc": "outside lower center", "ncols": min(5, len(found)), **options}
        figure.legend(found.values(), found.keys(), fontsize=8, **options)


def contact_sheet(
    images: Sequence[Path],
    captions: Sequence[str],
    rare: Sequence[bool],
    title: str,
    levels: Levels | None = None,
) -> Figure:
    """Draw images in a grid of 12 columns, those marked ``rare`` in a thick orange frame."""
    columns = 12
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(columns, 1.25 * rows + 0.6))
    # One axis for all: an axis each takes seconds to lay out.
    axis = figure.add_axes((0.01, 0.01, 0.98, 1 - 0.6 / (1.25 * rows + 0.6)))
    for number, (path, caption, is_rare) in enumerate(zip(images, captions, rare)):
        left, top = number % columns, -1.25 * (number // columns)
        picture = thumbnail(path, 160, levels)
        width, height = (0.92 * side / max(picture.size) for side in picture.size)
        x, y = left + (1 - width) / 2, top - 1.05 + (0.92 - height) / 2
        axis.imshow(picture, extent=(x, x + width, y, y + height), interpolation="antialiased")
        color, line = (RARE, 3) if is_rare else (COMMON, 1)
        axis.add_patch(Rectangle((x, y), width, height, fill=False, ec=color, lw=line))
        text = RARE if is_rare else "black"
        above = y + height + 0.03
        said = axis.text(left + 0.5, above, _clipped(caption), ha="center", va="bottom", fontsize=7)
        said.set(color=text, fontweight="bold" if is_rare else "normal")
    axis.set(xlim=(0, columns), ylim=(-1.25 * rows + 0.1, 0.1))
    axis.set_axis_off()
    figure.suptitle(title)
    return figure


def _clipped(caption: str, most: int = 22) -> str:
    """Return as much of a caption as fits above its image; the page has all of it."""
    return caption if len(caption) <= most else f"{caption[: most - 1]}…"


def thumbnail(path: Path, side: int, levels: Levels | None = None) -> Image.Image:
    """Return the image at ``path``, its longer side reduced to ``side`` pixels.

    One that cannot be read any more is a dark square with a light cross.
    """
    try:
        image = load(path, levels)
    except Unreadable:
        cross = np.eye(side, dtype=bool)
        return Image.fromarray(np.where(cross | cross[::-1], 200, 60).astype(np.uint8)).convert(
            "RGB"
        )
    image.thumbnail((side, side))
    return image


def score_histogram(
    scores: Sequence[float], threshold: float, title: str, note: str = ""
) -> Figure:
    """Draw the histogram of the newest scores and the newest threshold; higher = more OOD.

    ``note`` says in the legend what the flag rate of the run counts beside them.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.hist(finite(scores), bins=bin_edges(scores, 50), color=COMMON)
    if threshold == threshold and abs(threshold) != float("inf"):
        share = sum(score > threshold for score in scores) / max(1, len(scores))
        label = f"newest threshold {threshold:.4g}: {share:.2%} of these scores are above it"
        axis.axvline(threshold, color=RARE, linestyle="--", label=label)
        if note:
            axis.plot([], [], " ", label=note)
        legend(figure, ncols=1)
    axis.set(xlabel=SCORE_AXIS, ylabel="samples (number in a bin)", title=title)
    return figure


def training_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    references: Mapping[str, tuple[str, float]],
) -> Figure:
    """Draw each curve (steps, values) in a panel, with a named line where it has a reference."""
    figure = Figure(figsize=(7, 1.9 * len(curves) + 0.4), layout="constrained")
    axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False)
    for axis, (name, (steps, values)) in zip(axes.flat, curves.items()):
        axis.plot(steps, values, color=COLORS[0], linewidth=1)
        label = CURVE_AXES.get(name, name)
        if name in references:
            what, value = references[name]
            said = f"{label.partition(' (')[0]}: {what} {value:.3g}"
            axis.axhline(value, color=RARE, linestyle=(0, (4, 2)), label=said)
        axis.set_ylabel(label, fontsize=8)
        axis.grid(alpha=0.3)
    axes.flat[-1].set_xlabel("training step (number)")
    legend(figure)
    return figure


def finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return those that are neither infinite nor NaN."""
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def bin_edges(values: Sequence[float] | np.ndarray, bins: int) -> list[float]:
    """Return the edges of a histogram, also for values that are (nearly) equal, or none."""
    known = finite(values)
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    largest = float(max(abs(low), abs(high)))
    if high - low <= 1e-12 * largest:  # bins that floating point cannot tell apart
        low, high = low - (0.5 * largest or 0.5), high + (0.5 * largest or 0.5)
    return np.linspace(low, high, bins + 1).tolist()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as a PNG, or a JPEG where the name says so."""
    for text in figure.findobj(Text):
        shown = text.get_text()
        if shown:  # not of an axis, whose numbers are set while it is drawn
            text.set_text(printable(shown))
            text.set_parse_math(False)  # "$" in the name of a class
    figure.savefig(path, dpi=110)
    return path


def save_or_explain(make: Callable[[], Figure], path: Path) -> str | None:
    """Draw and write a figure; return why that failed, ``None`` if it did not.

    A failed picture must not cost the numbers.
    """
    try:
        save(make(), path)
    except Exception as error:
        path.unlink(missing_ok=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return printable(f"{path.name} could not be drawn: {reason}")
    return None
