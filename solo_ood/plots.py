"""Pictures of a run: what is queued, how the scores lie to the threshold, how training went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # not pyplot: files need no display and no global state
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from solo_ood.data.pixels import Levels, Unreadable, load
from solo_ood.text import printable

RARE, COMMON = "tab:red", "0.6"


def contact_sheet(
    images: Sequence[Path],
    captions: Sequence[str],
    rare: Sequence[bool],
    title: str,
    levels: Levels | None = None,
) -> Figure:
    """Draw images in a grid of 12 columns, those marked ``rare`` in a red frame."""
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
        color, line = (RARE, 2) if is_rare else (COMMON, 1)
        axis.add_patch(Rectangle((x, y), width, height, fill=False, ec=color, lw=line))
        text = RARE if is_rare else "black"
        above = y + height + 0.03
        axis.text(left + 0.5, above, caption, ha="center", va="bottom", fontsize=7, color=text)
    axis.set(xlim=(0, columns), ylim=(-1.25 * rows + 0.1, 0.1))
    axis.set_axis_off()
    figure.suptitle(title)
    return figure


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
        axis.axvline(threshold, color=RARE, label=label)
        if note:
            axis.plot([], [], " ", label=note)
        figure.legend(loc="outside lower center", fontsize=8)
    axis.set(xlabel="ood_score (higher = rarer)", ylabel="samples", title=title)
    return figure


def training_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    references: Mapping[str, tuple[str, float]],
) -> Figure:
    """Draw each curve (steps, values) in a panel, with a named line where it has a reference."""
    figure = Figure(figsize=(7, 1.9 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False)
    for axis, (name, (steps, values)) in zip(axes.flat, curves.items()):
        axis.plot(steps, values, color="tab:blue", linewidth=1)
        if name in references:
            label, value = references[name]
            axis.axhline(value, color=RARE, linestyle=":", label=f"{label} {value:.3g}")
            axis.legend(fontsize=8)
        axis.set_ylabel(name, fontsize=8)
        axis.grid(alpha=0.3)
    axes.flat[-1].set_xlabel("training step")
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


def why_not_saved(make: Callable[[], Figure], path: Path) -> str | None:
    """Draw and write a figure; return why that failed, ``None`` if it did not.

    A picture must never cost the numbers that it shows.
    """
    try:
        save(make(), path)
    except Exception as error:
        path.unlink(missing_ok=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return printable(f"{path.name} could not be drawn: {reason}")
    return None
