"""Compare ``dino_ood`` with its controls over several seeds: ``make controls``.

Trains DINO without replay (off), with random replay, with the k-NN detector and with the oracle on
the embedded digits, evaluates each and an untrained network by k-NN, and prints means with 95 %
t-intervals over the seeds. A second call goes on where the first one stopped.
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

from solo_ood.report import read_curves

SCRIPTS = Path(__file__).resolve().parent
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


def run(arm: str, seed: int, out: Path) -> dict[str, float]:
    """Train and evaluate one arm with one seed; return its numbers, from disk if they are there."""
    folder = out / f"{arm}-{seed}"
    result = folder / "result.json"
    if not result.is_file():
        settings = [*ARMS[arm], f"+seed={seed}", f"checkpoint.dir={folder}"]
        quiet = ["+enable_progress_bar=False", "data.val_path=null"]
        call("main_pretrain.py", "--config-name", "dino_ood", *settings, *quiet)
        newest = max((folder / "dino_ood").glob("*/*.ckpt"), key=lambda p: p.stat().st_mtime)
        call("main_knn.py", "--pretrained_checkpoint_dir", newest.parent)
        numbers = json.loads((newest.parent / "knn.json").read_text())
        curves = read_curves(newest.parent / "metrics.csv")
        if "ood/lift" in curves:  # both are over the run so far: the last value counts
            numbers["Flag rate"] = 100 * curves["ood/flag_rate"][1][-1]
            numbers["Lift"] = curves["ood/lift"][1][-1]
        result.write_text(json.dumps(numbers))
        print(f"{arm}, seed {seed}: {numbers}", flush=True)
    return json.loads(result.read_text())


def interval(values: list[float]) -> str:
    """Return ``mean +- half`` of the 95 % t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{np.mean(values):.1f} ± {half:.1f}"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo/controls"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time")
    args = parser.parse_args()
    todo = [(arm, seed) for seed in range(args.seeds) for arm in ARMS]
    with ThreadPoolExecutor(args.jobs) as pool:
        numbers = list(pool.map(lambda item: run(*item, args.out), todo))
    columns = ["All", "Many", "Medium", "Few", "Flag rate", "Lift"]
    print(f"| {args.seeds} seeds | " + " | ".join(columns) + " |\n" + "|---" * 7 + "|")
    for arm in ARMS:
        rows = [n for (name, _), n in zip(todo, numbers) if name == arm]
        cells = [interval([r[c] for r in rows]) if c in rows[0] else "–" for c in columns]
        print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
