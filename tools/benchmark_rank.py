"""What ranking costs once images are embedded: seconds and memory, on synthetic features.

``python tools/benchmark_rank.py``: 100,000 images of 384 features, in clips as frames are.
Each step runs in a process of its own, so that its largest memory is its own, too.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from solo_ood.data.frames import Frames
from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.feats import Feats, PatchView
from solo_ood.mining.cross_fit import cross_fitted, groups_of
from solo_ood.mining.evidence import boxes_in_images, score_regions
from solo_ood.mining.output import records, write_lists
from solo_ood.mining.ranking import build
from solo_ood.mining.scenes import Scenes, choose, usual_distance
from solo_ood.pages import markdown

CLIP = 200  # images
PATCHES = "BENCHMARK_PATCHES"  # the environment says where they are


def features(n: int, dim: int) -> np.ndarray:
    """Return (n, dim) float32 of length 1: clips of neighbours that are alike."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(-(-n // CLIP), dim)).astype(np.float32), CLIP, axis=0)[:n]
    rows += 0.7 * rng.normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ranked(name: str, rows: np.ndarray) -> None:
    clips = [f"{row // CLIP}" for row in range(len(rows))]
    known = Feats(rows[:10].copy()) if DETECTORS[name].exemplars else None
    cross_fitted(DETECTORS[name], Feats(rows), groups_of(clips, None), known)


def scenes(rows: np.ndarray) -> Scenes:
    scores = np.random.default_rng(0).random(len(rows))
    return choose(scores, rows, [""] * len(rows), 500, usual_distance(rows))


def regions(rows: np.ndarray) -> None:
    """Score the regions of all images, and find their boxes, by ten images with a marked patch."""
    patches = np.load(os.environ[PATCHES], mmap_mode="r+")
    grid = patches.shape[1:3]
    feats = Feats(rows, PatchView(patches))
    inside = np.zeros((10, grid[0] * grid[1], 2), dtype=np.float32)
    inside[:, :3, 0] = inside[:, 3:, 1] = 1
    first = np.arange(10)
    known = Feats(rows[first], PatchView(patches[first].copy()), inside)
    _, cells = score_regions(feats, known, grid, lambda count: None)
    shown = np.full((len(rows), 2), (720, 1280))
    boxes_in_images(cells, grid, (224, 224), shown)


def written(rows: np.ndarray) -> None:
    """Write ranking.csv and ranking.parquet of all images."""
    root = Path("/data")
    paths = tuple(root / f"{row // CLIP:04d}" / f"{row:06d}.jpg" for row in range(len(rows)))
    frames = Frames(root, paths, tuple(path.parent.name for path in paths), "folder")
    scores = np.random.default_rng(0).random(len(rows))
    found = build(frames, paths, scores, scenes(rows), [])
    with TemporaryDirectory() as folder:
        write_lists(records(found, frames), {}, Path(folder))


STEPS: dict[str, Callable[[np.ndarray], object]] = {
    "the features alone": lambda rows: None,
    "exemplar": lambda rows: ranked("exemplar", rows),
    "knn": lambda rows: ranked("knn", rows),
    "mahalanobis": lambda rows: ranked("mahalanobis", rows),
    "exemplar-regions": regions,
    "500 scenes": scenes,
    "500 scenes, and all lists written": written,
}


def write_patches(path: Path, n: int, shape: tuple[int, int, int]) -> None:
    """Write (n, h, w, D') float16 of length 1: the same 500 images again and again."""
    array = np.lib.format.open_memmap(path, "w+", dtype="float16", shape=(n, *shape))
    some = np.random.default_rng(0).normal(size=(500, *shape)).astype(np.float32)
    some /= np.linalg.norm(some, axis=-1, keepdims=True)
    for start in range(0, n, len(some)):
        array[start : start + len(some)] = some[: n - start]
    array.flush()


def measured(step: str, n: int, dim: int) -> tuple[float, float, float]:
    """Return seconds, those of all cores, and GB of the process at most, imports included."""
    rows = features(n, dim)
    import torch  # noqa: F401  (not a part of what is timed)

    ranked("exemplar", rows[:2000])
    begin, busy = time.perf_counter(), time.process_time()
    STEPS[step](rows)
    seconds, cores = time.perf_counter() - begin, time.process_time() - busy
    return seconds, cores, peak()


def peak() -> float:
    """Return the largest memory (GB) of this process; ``getrusage`` has its parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(found) / 1e6


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument(
        "--patches", type=int, nargs=3, default=(7, 7, 320), metavar=("h", "w", "D")
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    asked = parser.parse_args()
    head = [f"{asked.images:,} x {asked.dim}", "s", "CPU s", "GB at most"]
    print(markdown.head(head), flush=True)
    with TemporaryDirectory() as folder:
        os.environ[PATCHES] = str(Path(folder) / "patches.npy")
        if "exemplar-regions" in asked.steps:
            write_patches(Path(os.environ[PATCHES]), asked.images, tuple(asked.patches))
        for step in asked.steps:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, cores, memory = pool.apply(measured, (step, asked.images, asked.dim))
            cells = [step, f"{seconds:.1f}", f"{cores:.1f}", f"{memory:.1f}"]
            print(markdown.row(cells), flush=True)


if __name__ == "__main__":
    main()
