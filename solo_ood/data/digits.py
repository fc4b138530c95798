"""Digits-LT: scikit-learn's real handwritten digits, made long-tailed, as an ImageFolder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from solo_ood.data.tail import exponential_counts
from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.files.cache import cache_folder

SPLITS = ("train", "reference", "val")
IMBALANCE = 20
SIDE = 32  # pixels; the 8 x 8 scans are enlarged
_VAL_PER_CLASS = 36
_NAME = f"digits-lt-{IMBALANCE}-v1"


def digits_lt(split: str = "train") -> str:
    """Return the folder of one split; written to the cache on first use (about 2 s).

    ``train`` is long-tailed (imbalance 20; digit 0 is the most frequent, 9 the rarest),
    ``reference`` is balanced and contains ``train`` (for linear and k-NN evaluation), ``val`` is
    balanced and disjoint from both. The cache is ``$SOLO_OOD_CACHE``, by default
    ``~/.cache/solo-ood``.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998.

    Raises:
        UserError: for another split.
    """
    if split not in SPLITS:
        raise UserError(
            "digits split", expected=f"one of {SPLITS}", got=split, remedy="Use 'train'."
        )
    root = cache_folder() / _NAME
    if not root.exists():
        with atomic.staged_folder(
            root
        ) as aside:  # a process beside this one never sees half a data set
            _write(aside)
    return str(root / split)


def register_resolver() -> None:
    """Let ``${solo_ood.digits:train}`` in a config be the folder of a split."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("solo_ood.digits", digits_lt, replace=True)


def split_of(folder: str | Path) -> str | None:
    """Return which split ``folder`` is, in this cache or another one; ``None`` for other data."""
    path = Path(folder)
    return path.name if path.name in SPLITS and path.parent.name == _NAME else None


def _write(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(0)
    per_class = [rng.permutation(np.flatnonzero(digits.target == c)) for c in range(10)]
    largest = min(map(len, per_class)) - _VAL_PER_CLASS
    for label, (members, n_train) in enumerate(
        zip(per_class, exponential_counts(largest, 10, IMBALANCE))
    ):
        pool = members[_VAL_PER_CLASS : _VAL_PER_CLASS + largest]
        splits = {"val": members[:_VAL_PER_CLASS], "reference": pool, "train": pool[:n_train]}
        for split, indexes in splits.items():
            into = folder / split / str(label)
            into.mkdir(parents=True)
            for index in indexes:
                pixels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
                image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                image.convert("RGB").save(into / f"{index:04d}.png")
