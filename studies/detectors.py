"""Try many detectors of rare images on several data sets; print the results as Markdown.

Unsupervised detectors see the stream only, exemplar detectors ten rare images as well. Embeddings
and results stay in ``--out``: a second call goes on where the first one stopped. See
``docs/detectors.md`` for the commands. **Higher score = rarer**, for every detector.
"""

from __future__ import annotations

import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
from camvid import camvid_tables, read_camvid
from long_tail import ORDERS, long_tail_tables
from sklearn.datasets import load_digits
from sklearn.preprocessing import normalize

from solo_ood.data.digits import digits_lt
from solo_ood.data.images import Split, long_tailed, read_splits
from solo_ood.detection.feats import Feats, PatchView
from solo_ood.embedding.extract import ExtractConfig, embed
from solo_ood.embedding.networks import make_embedder


def main(args: Namespace) -> None:
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", ".*onverge.*")

    # By weights: another network's results are not to be taken for these.
    args.results = args.out / "results" / Path(args.embedder).stem

    def features(split: Split, root: Path, side: int, stage: str = "last") -> Feats:
        embedder = make_embedder(args.embedder, stage, patches=stage == "last")
        cfg = ExtractConfig(args.out / "embeddings", side, 64, 1, args.accelerator, 1)
        found = embed(split, embedder, cfg, root, f"{root.name}, {side} px")
        return Feats(found.pooled, PatchView(found.patches) if found.patches is not None else None)

    if "digits" in args.data:
        root = Path(digits_lt("reference"))
        split = read_splits(root)[0]
        pixels = load_digits().data.astype(np.float32)[[int(path.stem) for path in split.paths]]
        tails = [long_tailed(split, 20, order)[0] for order in ORDERS]
        long_tail_tables("digits, pixels", tails, Feats(pixels), split, args)
        long_tail_tables("digits, network", tails, features(split, root, 128), split, args)
    if "cifar" in args.data:
        split = read_splits(args.cifar)[0]
        tails = [long_tailed(split, 100, order)[0] for order in ORDERS]
        used = {path for tail in tails for path in tail.paths}
        split = split.keep(np.array([path in used for path in split.paths]))
        # Without patches: at 16 an image they would take longer than all the others together.
        pooled = Feats(features(split, args.cifar, 128).pooled)
        long_tail_tables("CIFAR-10-LT", tails, pooled, split, args)
    if "camvid" in args.data:
        both, n_fit = read_camvid(args.camvid)
        at = {side: features(both, args.camvid, side) for side in (224, 360, 512)}
        early = normalize(features(both, args.camvid, 360, "3").pooled) / 2
        joined = {
            "": at[512],
            "224 + 360 + 512 px": Feats(
                np.hstack([normalize(feats.pooled) for feats in at.values()])
            ),
            "an earlier stage beside it": Feats(np.hstack([early, normalize(at[512].pooled)])),
        }
        camvid_tables(both, n_fit, joined, args)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", nargs="+", choices=["digits", "cifar", "camvid"])
    add("--embedder", required=True, help="as for `solo-ood measure`")
    add("--cifar", type=Path, help="the training images of CIFAR-10, a folder a class")
    add("--camvid", type=Path, help="driving frames in BDD100K's layout")
    add("--out", type=Path, default=Path("study"), help="embeddings and results")
    add("--seeds", type=int, default=3, help="of the folds and of detectors that draw")
    add("--accelerator", default="cpu")
    main(parser.parse_args())
