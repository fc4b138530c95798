"""How much do exemplars gain if it is known where in them what matters is? Print it as Markdown.

On driving frames, by the protocol of ``studies/detectors.py``, for several numbers of exemplars,
with masks and with boxes. Embeddings and results stay in ``--out``.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from camvid import PHASES, camvid_tasks, read_camvid
from PIL import Image
from results import Numbers, draws_of, quality, resumed, table
from scipy import ndimage
from stream import Stream
from tqdm import tqdm
from with_exemplars import ridge

from solo_ood.data.images import Split
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.boxes import Box
from solo_ood.detection.detectors import detector
from solo_ood.detection.feats import Feats, PatchView
from solo_ood.detection.regions import Regions
from solo_ood.embedding.extract import Embedded, ExtractConfig, embed
from solo_ood.embedding.networks import make_embedder

COUNTS = (1, 2, 5, 10)
SMALLEST = 0.0003  # of an image's pixels: nobody draws a box around less


def boxes_of(split: Split, class_ids: tuple[int, ...]) -> dict[Path, list[Box]]:
    """Return the bounding boxes of the connected pixels of the classes, by image."""
    found: dict[Path, list[Box]] = {}
    for path, mask in zip(split.paths, split.masks):
        with Image.open(mask) as image:
            inside = np.isin(np.asarray(image), class_ids)
        pieces, _ = ndimage.label(inside)
        boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(pieces)]
        least = SMALLEST * inside.size
        found[path] = [b for b in boxes if (b[2] - b[0]) * (b[3] - b[1]) >= least]
    return found


def numbers(found: Embedded, n_fit: int, phase: str, names: list[str]) -> Numbers:
    """Return lift, AUROC and AP / base, a row a draw; the mean over splits and definitions."""
    both, patches = found.split, found.patches
    assert patches is not None and len(found.rows) == len(both)  # asked for; all can be read
    feats = Feats(found.pooled, PatchView(patches))
    by_mask = Regions(both, found.size, (patches.shape[1], patches.shape[2]))
    scores: dict[str, list[list[list[float]]]] = {name: [] for name in names}
    bar = tqdm(desc=phase, unit="draw")
    for fit, test, rares in camvid_tasks(both, n_fit, phase):
        stream = Stream(feats[fit], feats[test])
        score = detector("exemplar-regions").fit(feats[fit], 0)
        for definition, rare in rares.items():
            ids = tuple(both.classes.index(class_name) for class_name in definition.split("+"))
            asked = RareDefinition(definition, ids, 0.0, 0.0)
            regions = {"masks": by_mask, "boxes": replace(by_mask, boxes=boxes_of(both, ids))}
            for name in names:
                count, kind = int(name.split()[0]), name.split()[-1]
                qualities = []
                for rows in draws_of(fit[rare[fit]], count):
                    if kind in regions:
                        inside = regions[kind].patch_shares(asked, rows)
                        one = score(feats[test], replace(feats[rows], regions=inside))
                    else:
                        one = ridge(0.02, stream, feats.pooled[rows])
                    qualities.append(quality(rare[test], one, 0.2))
                    bar.update()
                scores[name].append(qualities)
    return {name: np.mean(rows, axis=0).tolist() for name, rows in scores.items()}


def main(args: Namespace) -> None:
    both, n_fit = read_camvid(args.camvid)
    cfg = ExtractConfig(args.out / "embeddings", 512, 32, 2, args.accelerator, 1)
    embedder = make_embedder(args.embedder, patches=True)
    found = embed(both, embedder, cfg, args.camvid, "driving frames")
    names = [
        f"{n} exemplar{'s' * (n > 1)}, {kind}"
        for n in COUNTS
        for kind in ("whole", "boxes", "masks")
    ]
    columns = {}
    for phase in PHASES:
        file = args.out / "results" / Path(args.embedder).stem / f"regions, {phase}.json"
        columns[phase] = resumed(file, names, partial(numbers, found, n_fit, phase))
    print("\n" + table("camvid", columns, {"AUROC": 1, "lift": 0}))


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--embedder", required=True, help="as for `solo-ood measure`")
    add("--camvid", type=Path, required=True, help="driving frames in BDD100K's layout")
    add("--out", type=Path, default=Path("study"), help="embeddings and results")
    add("--accelerator", default="cpu")
    main(parser.parse_args())
