"""The detector table as text, CSV, JSON and Markdown; the poster's own rows for comparison."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solo_ood.benchmark.measure import TableRow
from solo_ood.data.rare import POSTER_BASE_RATE
from solo_ood.evaluation.ranking import Interval
from solo_ood.files.text import printable
from solo_ood.pages.markdown import table as markdown_table

METRICS = {
    "accuracy": "Acc",
    "precision": "P",
    "recall": "R",
    "f1": "F1",
    "base_rate": "Base",
    "flag_rate": "Flag",
    "recall_ceiling": "R max",
    "lift": "Lift",
    "top_lift": "Top lift",
    "auroc": "AUROC",
    "ap": "AP",
    "fpr95": "FPR95",
}
HEADS = ("Network", "Rare", "Detector", "N", "p")
_SHORT = {"top_lift": "Top"}
# (network, N, p, accuracy, precision, recall, F1) as printed on the poster.
_POSTER = (
    ("DINO-ImageNet", 256, 0.99, 0.7868, 0.1861, 0.0338, 0.0571),
    ("DINO-ImageNet", 256, 0.95, 0.7601, 0.1628, 0.0612, 0.0890),
    ("DINO-ImageNet", 256, 0.90, 0.7299, 0.1925, 0.1287, 0.1543),
    ("DINO-ImageNet", 256, 0.80, 0.6483, 0.1780, 0.2316, 0.2013),
    ("DINO-ImageNet", 1024, 0.99, 0.7982, 0.2101, 0.0196, 0.0359),
    ("DINO-ImageNet", 1024, 0.95, 0.7733, 0.1916, 0.0573, 0.0882),
    ("DINO-ImageNet", 1024, 0.90, 0.7372, 0.1829, 0.1075, 0.1354),
    ("DINO-ImageNet", 1024, 0.80, 0.6714, 0.1841, 0.2088, 0.1957),
    ("DINO-BDD100K", 1024, 0.99, 0.7975, 0.1696, 0.0149, 0.0274),
    ("DINO-BDD100K", 1024, 0.95, 0.7643, 0.1959, 0.0746, 0.1080),
    ("DINO-BDD100K", 1024, 0.90, 0.7296, 0.2011, 0.1389, 0.1643),
    ("DINO-BDD100K", 1024, 0.80, 0.6708, 0.2021, 0.2441, 0.2211),
)


def poster_rows() -> list[TableRow]:
    """Return the poster's table, with what follows from its numbers and its base rate."""
    rows = []
    base = POSTER_BASE_RATE
    for network, n_fit, p, accuracy, precision, recall, f1 in _POSTER:
        flag = recall * base / precision
        known = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}
        known |= {"base_rate": base, "flag_rate": flag, "lift": precision / base}
        known["recall_ceiling"] = min(1.0, flag / base)
        metrics = {name: Interval(known.get(name, np.nan), np.nan, np.nan) for name in METRICS}
        rows.append(TableRow(network, "poster", "poster", n_fit, p, 0, 0, np.nan, metrics))
    return rows


def mean_rows(rows: Sequence[TableRow]) -> list[TableRow]:
    """Return the mean over the definitions of rare, where there are several; without intervals."""
    definitions = list(dict.fromkeys(row.definition for row in rows))
    groups: dict[tuple[Any, ...], list[TableRow]] = {}
    for row in rows:
        key = (row.embedder, row.detector, row.n_fit, row.percentile)
        groups.setdefault(key, []).append(row)
    if len(definitions) < 2:
        return []
    means = []
    for (embedder, name, n_fit, p), group in groups.items():
        metrics = {
            metric: Interval(
                float(np.mean([r.metrics[metric].value for r in group])), np.nan, np.nan
            )
            for metric in METRICS
        }
        head = (embedder, f"mean of {len(group)}", name, n_fit, p, group[0].n_test)
        means.append(TableRow(*head, group[0].repeats, np.nan, metrics))
    return means


def markdown(rows: Sequence[TableRow], intervals: bool = True) -> str:
    """Return a Markdown table; with ``intervals``, those of lift, top lift and AUROC are shown."""
    with_interval = ("lift", "top_lift", "auroc") if intervals else ()
    cells = [
        [
            *(row.embedder, row.definition, row.detector, size_text(row.n_fit), row.percentile),
            *(metric_text(row.metrics[name], name in with_interval) for name in METRICS),
        ]
        for row in rows
    ]
    return markdown_table([*HEADS, *METRICS.values()], cells) + "\n"


def terminal(rows: Sequence[TableRow]) -> str:
    """Return one line for each detector and size, at its last percentile (the most flagged).

    No line of numbers is longer than 80 characters; titles are wrapped there.
    """
    keys = ("base_rate", "flag_rate", "precision", "recall", "lift", "top_lift", "ap", "auroc")
    last = {(r.embedder, r.definition, r.detector, r.n_fit): r for r in rows}
    lines = []
    group = None
    for row in last.values():
        if group != (row.embedder, row.definition):
            group = (row.embedder, row.definition)
            title = printable(f"{row.embedder}, rare: {row.definition}, p = {row.percentile}")
            heads = "".join(f"{_SHORT.get(key, METRICS[key]):>6}" for key in keys)
            lines += ["", *textwrap.wrap(title, 80, subsequent_indent="  ")]
            lines.append(f"{'':<17}{'N':>6}{heads}  95% CI")
        values = "".join(f"{_number(row.metrics[key].value):>6}" for key in keys)
        low, high = (f"{end:.2f}".removeprefix("0") for end in row.metrics["auroc"][1:])
        interval = "" if "nan" in low else f" {low}-{high}"
        lines.append(f"{row.detector:<17}{size_text(row.n_fit):>6}{values}{interval}")
    return "\n".join(lines[1:])


def _number(value: float) -> str:
    """Return five characters for a share or a lift."""
    return "–" if np.isnan(value) else f"{value:#.4g}" if value >= 10 else f"{value:.3f}"


FILES = ("table.csv", "table.json", "table.md")


def write(rows: Sequence[TableRow], folder: Path, facts: dict[str, Any]) -> list[Path]:
    """Write ``table.csv``, ``table.json`` and ``table.md``; return their paths."""
    records = [_record(row) for row in rows]
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    text = json.dumps({"about": facts, "rows": [_finite(r) for r in records]}, indent=1)
    (folder / "table.json").write_text(text + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(rows), encoding="utf-8")
    return [folder / name for name in FILES]


def _record(row: TableRow) -> dict[str, Any]:
    record = {
        "embedder": printable(row.embedder),
        "rare": printable(row.definition),
        "detector": row.detector,
        "n_fit": row.n_fit,
        "percentile": row.percentile,
        "threshold": row.threshold,
        "n_test": row.n_test,
        "repeats": row.repeats,
    }
    for name in METRICS:
        record[name] = row.metrics[name].value
        record[f"{name}_low"], record[f"{name}_high"] = row.metrics[name][1:]
    return record


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN, which is not JSON, by ``None``."""
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in record.items()}


def size_text(n_fit: int | None) -> str:
    """Return how many samples a detector was fitted on, "–" where it learns nothing."""
    return "–" if n_fit is None else f"{n_fit}"


def metric_text(value: Interval, with_interval: bool) -> str:
    """Return a figure of the table, "–" where there is none."""
    if np.isnan(value.value):
        return "–"
    text = f"{value.value:.3f}"
    if with_interval and not np.isnan(value.low):
        text += f" [{value.low:.2f}, {value.high:.2f}]"
    return text
