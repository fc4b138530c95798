"""Pictures of a run: what is queued, how the scores lie to the threshold, how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # not pyplot: files need no display and no global state
from matplotlib.patches import Rectangle

RARE, COMMON = "tab:red", "0.6"


def contact_sheet(
    images: Sequence[Path], captions: Sequence[str], rare: Sequence[bool], title: str
) -> Figure:
    """Draw images in a grid of 12 columns, those marked ``rare`` in a red frame."""
    columns = 12
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(columns, 1.25 * rows + 0.6))
    # One axis for all: an axis each takes seconds to lay out.
    axis = figure.add_axes((0.01, 0.01, 0.98, 1 - 0.6 / (1.25 * rows + 0.6)))
    for number, (path, caption, is_rare) in enumerate(zip(images, captions, rare)):
        left, top = number % columns, -1.25 * (number // columns)
        picture = thumbnail(path, 160)
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


def thumbnail(path: Path, side: int) -> Any:
    """Return the RGB image at ``path``, its longer side reduced to ``side`` pixels."""
    from PIL import Image

    with Image.open(path) as image:
        image.thumbnail((side, side))
        return image.convert("RGB")


def score_histogram(
    scores: Sequence[float], threshold: float, title: str, note: str = ""
) -> Figure:
    """Draw the histogram of the newest scores and the newest threshold; higher = more OOD.

    ``note`` says in the legend what the flag rate of the run counts beside them.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.hist(scores, bins=50, color=COMMON)
    if threshold == threshold and abs(threshold) != float("inf"):
        share = sum(score > threshold for score in scores) / max(1, len(scores))
        label = f"newest threshold {threshold:.4g}: {share:.2%} of these scores are above it"
        axis.axvline(threshold, color=RARE, label="\n".join(filter(None, (label, note))))
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, -0.35), fontsize=8)
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


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as a PNG, or a JPEG where the name says so."""
    figure.savefig(path, dpi=110)
    return path
