"""How good is the list of ``solo-ood rank`` on driving frames? Print it as Markdown.

CamVid's frames (train and val) in BDD100K's layout are one unlabelled set; the masks say afterwards
which are rare: those whose pixels of the class take more than the share that makes 19.14 % of all
frames rare. Ten exemplars are drawn from the rare train frames, with the bounding boxes of the
class; they and what stands behind them are no part of the list. With ``--write`` the exemplars and
boxes of the first draw, and the true answers, are written for docs/find-rare-frames.md.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from regions import boxes_of
from results import Numbers, table
from sklearn.neighbors import NearestNeighbors

from solo_ood.data.bdd import CLASSES, mask_beside, pixel_shares
from solo_ood.data.frames import Frames, read_frames
from solo_ood.data.images import Split
from solo_ood.data.rare import POSTER_BASE_RATE, RareDefinition
from solo_ood.data.survey import survey
from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.feats import Feats, feats_of
from solo_ood.detection.regions import Regions
from solo_ood.embedding.extract import Embedded, embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.embedding.options import ExtractConfig
from solo_ood.mining.cross_fit import cross_fitted, groups_of
from solo_ood.mining.scenes import choose, usual_distance

TOP, EXEMPLARS = 40, 10
WEIGHTS = (0.6, 0.3, 0.1)  # of the three nearest


def uniqueness(pooled: np.ndarray) -> np.ndarray:
    """Return FiftyOne's uniqueness (N,): the weighted distance to the three nearest others."""
    distances, _ = NearestNeighbors(n_neighbors=len(WEIGHTS) + 1).fit(pooled).kneighbors(pooled)
    return distances[:, 1:] @ np.array(WEIGHTS)


def list_precision(
    scores: np.ndarray, unit: np.ndarray, rare: np.ndarray, known: np.ndarray, near: float
) -> float:
    """Return the share of rare frames among the first 40 of the list."""
    scenes = choose(scores, unit, [""] * len(scores), TOP, near, known=known.tolist())
    return float(rare[scenes.chosen].mean())


@dataclass(frozen=True)
class Judged:
    """The frames, the truth, and the exemplars of each draw.

    Attributes:
        found: features of N frames.
        rare: (N,) bool.
        regions: the boxes, on the grid of the patches.
        draws: rows of exemplars.
        near: cosine distance within which frames are one scene.
    """

    frames: Frames
    found: Embedded
    rare: np.ndarray
    regions: Regions
    draws: list[np.ndarray]
    near: float

    @property
    def feats(self) -> Feats:
        return feats_of(self.found)

    @property
    def unit(self) -> np.ndarray:
        return self.found.pooled / np.linalg.norm(self.found.pooled, axis=1, keepdims=True)

    def marked(self, rows: np.ndarray) -> Feats:
        """Return these frames with their boxes."""
        inside = self.regions.patch_shares(RareDefinition("boxes", (), 0, 0), rows)
        return replace(self.feats[rows], regions=inside)


def arguments(about: str) -> ArgumentParser:
    parser = ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--embedder", required=True)
    parser.add_argument("--cache", type=Path, default=Path("study/embeddings"))
    parser.add_argument("--rare", default="person")
    parser.add_argument("--draws", type=int, default=20)
    return parser


def judged(asked: Namespace) -> Judged:
    frames = read_frames(asked.camvid, "^([^_]+)")
    split = replace(frames.split, levels=survey(frames.paths).levels)
    embedder = make_embedder(asked.embedder, "last", True)
    cfg = ExtractConfig(cache=asked.cache, image_size=512)
    found = embed(split, embedder, cfg, frames.root, "frames")
    masks = tuple(mask for path in frames.paths if (mask := mask_beside(path)) is not None)
    wanted = CLASSES.index(asked.rare)
    shares = pixel_shares(masks, "masks")[0][:, wanted]
    rare = shares > np.quantile(shares, 1 - POSTER_BASE_RATE)
    labelled = Split(frames.paths, split.shares, (), masks)
    boxes = boxes_of(labelled, (wanted,))
    train = np.array(["train" in path.parts for path in frames.paths])
    pool = np.flatnonzero(rare & train & np.array([bool(boxes[path]) for path in frames.paths]))
    draws = [
        np.sort(np.random.default_rng(seed).choice(pool, EXEMPLARS, replace=False))
        for seed in range(asked.draws)
    ]
    assert found.patches is not None
    grid = (found.patches.shape[1], found.patches.shape[2])
    regions = Regions(labelled, found.size, grid, boxes)
    unit = found.pooled / np.linalg.norm(found.pooled, axis=1, keepdims=True)
    return Judged(frames, found, rare, regions, draws, usual_distance(unit))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    data = judged(asked)
    feats, rare, near = data.feats, data.rare, data.near
    assert data.regions.boxes is not None
    if asked.write is not None:
        write(asked.write, data.frames, data.regions.boxes, data.draws[0], rare)
    groups = groups_of(data.frames.clips, None)
    fixed = {
        "knn": cross_fitted(DETECTORS["knn"], feats, groups),
        "FiftyOne's uniqueness": uniqueness(data.found.pooled),
    }
    results: Numbers = {}
    for number, rows in enumerate(data.draws):
        whole = feats[rows]
        marked = data.marked(rows)
        scores = {
            "random": np.random.default_rng(number).random(len(feats)),
            **fixed,
            "exemplar-cosine": DETECTORS["exemplar-cosine"].fit(feats, 0)(feats, whole),
            "exemplar": cross_fitted(DETECTORS["exemplar"], feats, groups, whole),
            "exemplar-regions (boxes)": DETECTORS["exemplar-regions"].fit(feats, 0)(feats, marked),
        }
        for name, values in scores.items():
            both = [list_precision(values, data.unit, rare, rows, d) for d in (0.0, near)]
            results.setdefault(name, []).append(both)
    print(f"{len(rare)} frames, base rate {rare.mean():.3f}, {asked.draws} draws of exemplars\n")
    heads = {f"first {TOP} frames": 0, f"first {TOP} scenes (distance {near:.3f})": 1}
    print(table("precision", {"": results}, heads))


def write(folder: Path, frames, boxes, rows: np.ndarray, rare: np.ndarray) -> None:
    """Write ``boxes.csv`` of these exemplars, and ``truth.csv``: the answers of all frames."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,left,top,right,bottom"]
    for row in rows:
        path = frames.paths[row]
        lines += [f"{frames.name(path)},{','.join(map(str, box))}" for box in boxes[path]]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    answers = [f"{frames.name(p)},{'yes' if r else 'no'}" for p, r in zip(frames.paths, rare)]
    (folder / "truth.csv").write_text("\n".join(["path,rare", *answers]) + "\n")


if __name__ == "__main__":
    main()
