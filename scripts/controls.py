"""Compare ``dino_ood`` with its controls over several seeds: ``make controls``.

Trains DINO without replay (off), with random replay, with the k-NN detector and with the oracle on
the embedded digits, evaluates each and an untrained network by k-NN, and prints means with 95 %
t-intervals over the seeds. A second call goes on where the first one stopped. The fair control is
``random``, whose picks persist as a detector's do: beside lift stand how many distinct samples each
arm replayed, and how often. A seed is that of all draws, as ``ood.seed`` is the run's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import stats

from solo_ood.pages import markdown
from solo_ood.runs.report import read_curves

SCRIPTS = Path(__file__).resolve().parent
# Of metrics.csv; each is over the run so far, so the last value counts.
LOGGED = {
    "Flag rate": ("ood/flag_rate", 100),
    "Lift": ("ood/lift", 1),
    "Distinct": ("ood/distinct_replayed", 1),
    "Replays each": ("ood/replays_per_sample", 1),
    "Released": ("ood/share_released", 100),
}
TABLES = (["All", "Many", "Medium", "Few"], list(LOGGED))  # beside each other they fill 120 columns
ARMS = {
    "untrained": ["ood=off", "optimizer.lr=0", "+limit_train_batches=1"],
    "off": ["ood=off"],
    "random": ["ood=random"],
    "knn": ["ood=default"],
    "oracle": ["ood=oracle"],
}


def call(script: str, *arguments: object) -> None:
    """Run a script of this folder in one thread; raise with its errors if it fails."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def run(arm: str, seed: int, out: Path, *overrides: str) -> dict[str, float]:
    """Train and evaluate one arm with one seed; return its numbers, from disk if they are there."""
    folder = out / f"{arm}-{seed}"
    result = folder / "result.json"
    if not result.is_file():
        settings = [*ARMS[arm], f"+seed={seed}", f"checkpoint.dir={folder}", *overrides]
        quiet = ["+enable_progress_bar=False", "+limit_val_batches=0"]
        call("main_pretrain.py", "--config-name", "dino_ood", *settings, *quiet)
        newest = max((folder / "dino_ood").glob("*/*.ckpt"), key=lambda p: p.stat().st_mtime)
        call("main_knn.py", "--pretrained_checkpoint_dir", newest.parent)
        numbers = json.loads((newest.parent / "knn.json").read_text())
        curves = read_curves(newest.parent / "metrics.csv")
        for column, (name, scale) in LOGGED.items():
            if name in curves:
                numbers[column] = scale * curves[name][1][-1]
        result.write_text(json.dumps(numbers))
        print(f"{arm}, seed {seed}: {numbers}", flush=True)
    return json.loads(result.read_text())


def interval(values: list[float]) -> str:
    """Return ``mean +- half`` of the 95 % t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    digits = 0 if np.mean(values) >= 1000 or half >= 100 else 1
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


def table(measured: dict[str, list[dict[str, float]]], columns: list[str], seeds: int) -> str:
    """Return a Markdown table of ``columns``, with a row for each arm that has any of them."""
    lines = []
    for arm, rows in measured.items():
        known = [c for c in columns if all(c in row for row in rows)]
        cells = [interval([row[c] for row in rows]) if c in known else "–" for c in columns]
        if known:
            lines.append([arm, *cells])
    return markdown.table([f"{seeds} seeds", *columns], lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo/controls"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time")
    parser.add_argument("overrides", nargs="*", help="of the config, for every arm")
    args = parser.parse_args()
    todo = [(arm, seed) for seed in range(args.seeds) for arm in ARMS]
    with ThreadPoolExecutor(args.jobs) as pool:
        numbers = list(pool.map(lambda item: run(*item, args.out, *args.overrides), todo))
    measured = {arm: [n for (name, _), n in zip(todo, numbers) if name == arm] for arm in ARMS}
    print("\n\n".join(table(measured, columns, args.seeds) for columns in TABLES))


if __name__ == "__main__":
    main()
