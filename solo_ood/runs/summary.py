"""What a run's detector and queue did, in lines of text."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solo_ood.files.text import few, printable
from solo_ood.selection.selector import RareSelector
from solo_ood.selection.self_check import wilson_interval
from solo_ood.selection.threshold import WINDOW, QuotaThreshold
from solo_ood.settings.schema import OODConfig

LABEL_WIDTH = 14  # columns of a line's label


@dataclass(frozen=True)
class Stream:
    """The images that a run was trained on, by dataset index; all empty if they are not there."""

    paths: Sequence[Path] = ()
    labels: Sequence[int] = ()  # -1 = unlabelled
    classes: Sequence[str] = ()

    def name(self, label: int) -> str:
        """Return the class's folder name; its number where that is not known."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def wrapped(line: str) -> str:
    """Return a printable line in at most 80 columns; one with too long a path as it is."""
    line = printable(line)
    if max(map(len, line.split()), default=0) > 80 - LABEL_WIDTH:
        return line
    return textwrap.fill(
        line,
        80,
        subsequent_indent=" " * LABEL_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def detector_lines(
    selector: RareSelector, ood: OODConfig, stream: Stream | None = None
) -> list[str]:
    """Return what there is to say of detector and queue, a line for each.

    Args:
        selector: settled.
        ood: its configuration.
        stream: the images it saw, for the names of classes; ``None`` = not known.
    """
    stream = stream or Stream()
    return _detector_lines(selector, ood, stream) + _queue_lines(selector, stream)


def _detector_lines(selector: RareSelector, ood: OODConfig, stream: Stream) -> list[str]:
    count, metrics = selector.counts, selector.metrics()
    if not count["judged"]:
        block = selector.threshold.n
        line = f"nothing judged yet: the first {block:,} samples are not in"
        lines = [f"{'flag rate':<14}{line}"]
        if count["not_finite"]:
            lines.append(f"{'':<14}{_unscored(count['not_finite'], ood)}")
        return lines
    target = float(selector.threshold.rate)
    rate = metrics["flag_rate"]
    line = f"{rate:.2%} of {count['judged']:,} judged; target {target:.2%}"
    threshold = selector.threshold
    if not math.isnan(threshold.rate_bound):
        line += f", bound +-{threshold.rate_bound:.2%}"
    lines = [f"{'flag rate':<14}{line}"]
    if threshold.n_judged >= WINDOW:
        line = f"worst {WINDOW:,} in a row {threshold.worst_window:.2%} from it"
        if isinstance(threshold, QuotaThreshold):
            line += f", bound {threshold.window_bound():.2%}"
        lines.append(f"{'':<14}{line}")
    lines += [
        f"{'detector':<14}scorer {ood.scorer.name}, threshold {ood.threshold.name} "
        f"at {threshold.threshold:.4g}",
    ]
    if "lift" in metrics:
        lines.append(
            f"{'':<14}precision {metrics['precision']:.3f}, base rate "
            f"{metrics['base_rate']:.3f}, lift {metrics['lift']:.2f} "
            f"(rare classes {few([stream.name(label) for label in selector.rare_classes])})"
        )
    if "lift_low" in metrics:
        lines.append(
            f"{'':<14}95 %: precision {metrics['precision_low']:.3f} to "
            f"{metrics['precision_high']:.3f}, lift {metrics['lift_low']:.2f} to "
            f"{metrics['lift_high']:.2f} ({selector.self_check.distinct_flagged:,} distinct "
            "samples flagged)"
        )
    if count["not_finite"]:
        lines.append(f"{'':<14}{_unscored(count['not_finite'], ood)}")
    return lines


def _unscored(number: int, ood: OODConfig) -> str:
    """Return how many samples had no score, and why that may be."""
    line = f"{number:,} samples had no score and were left out: features NaN or Inf"
    if ood.scorer.name == "knn" and ood.scorer.k is not None:
        line += f", or fewer than ood.scorer.k = {ood.scorer.k} other samples to compare with"
    return line


def _queue_lines(selector: RareSelector, stream: Stream) -> list[str]:
    queue = selector.queue
    lines = [
        f"{'queue':<14}{len(queue)} of {queue.capacity} indexes, mean age {queue.mean_age:.0f} "
        f"steps, {selector.counts['replayed']:,} rows replayed"
    ]
    used, left = queue.replay_counts(), sum(queue.departures.values())
    if "replays_per_sample" in used:
        lines.append(
            f"{'':<14}{int(used['distinct_replayed']):,} distinct samples, drawn "
            f"{used['replays_per_sample']:.1f} times each"
        )
    distinct, rare = used["distinct_replayed"], selector.metrics().get("distinct_rare_replayed")
    if rare is not None and distinct:
        share = min(1.0, rare / distinct)
        low, high = wilson_interval(share, int(distinct))
        lines.append(
            f"{'':<14}{int(rare):,} of them rare, {share:.0%} (95 %: {low:.0%} to {high:.0%})"
        )
    if left:
        shares = {how.replace("_", " "): n / left for how, n in queue.departures.items() if n}
        gone = ", ".join(f"{share:.0%} {how}" for how, share in shares.items())
        lines.append(f"{'':<14}{left:,} left it: {gone}")
    lines += [f"{'':<14}{text}" for text in selector.warnings()]
    known = [index for index in queue if index < len(stream.labels)]
    held = Counter(stream.labels[index] for index in known)
    if known and set(held) != {-1}:
        most = [f"{stream.name(label)}: {n}" for label, n in sorted(held.items())]
        lines.append(f"{'':<14}by class {few(most, 12)}")
    if stream.paths and len(known) < len(queue):
        lines.append(f"{'':<14}{len(queue) - len(known)} are of files that are not there any more")
    return lines
