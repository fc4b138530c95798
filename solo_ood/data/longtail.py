"""Cut a long-tailed training set and a balanced reference out of a balanced ImageFolder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from solo_ood.data.tail import exponential_counts
from solo_ood.errors import UserError


def longtail(
    source: Path, out: Path, imbalance: float, seed: int, reference: int = 0, largest: int = 0
) -> list[str]:
    """Link images of ``source`` into ``out/train`` (long-tailed) and ``out/reference`` (balanced).

    Which class is rare, and which of its images are taken, are drawn by ``seed``: pairs of runs of
    different seeds differ in both, so that no class decides. The two parts share no image. The
    profile is that of CIFAR-LT (Cui et al., 2019, arXiv:1901.05555).

    Args:
        source: an ImageFolder.
        out: a folder that does not exist yet.
        imbalance: images of the largest class / those of the smallest, at least 1.
        seed: of the order of the classes and of the draws.
        reference: images per class that ``train`` leaves for the reference.
        largest: images of the largest class; 0 = all but the reference that the smallest of the
            source's classes has.

    Returns:
        the classes, the most frequent first.

    Raises:
        UserError: if ``out`` exists, or for too few classes or images.
    """
    if out.exists():
        raise UserError(
            f"long-tailed subset {out}",
            expected="a folder that does not exist yet",
            got="one that does",
            remedy="Remove it or name another.",
        )
    classes = sorted(entry.name for entry in source.iterdir() if entry.is_dir())
    rng = np.random.default_rng(seed)
    images = {name: sorted((source / name).iterdir()) for name in classes}
    available = min(map(len, images.values()), default=0) - reference
    counts = exponential_counts(largest or available, len(classes), imbalance)
    if counts[0] > available or available < 1:
        raise UserError(
            f"images of a class of {source}",
            expected=f"at least {counts[0] + reference} ({reference} of them for the reference)",
            got=available + reference,
            remedy="Ask for a smaller largest class or reference.",
        )
    order = [classes[i] for i in rng.permutation(len(classes))]
    # Written aside and renamed: an interrupted call leaves nothing that looks whole.
    aside = out.with_name(f"{out.name}.{os.getpid()}")
    for name, count in zip(order, counts):
        drawn = [images[name][i] for i in rng.permutation(len(images[name]))]
        for split, chosen in (("train", drawn[:count]), ("reference", drawn[count:][:reference])):
            if chosen:
                (aside / split / name).mkdir(parents=True)
            for path in chosen:
                (aside / split / name / path.name).symlink_to(path.resolve())
    aside.rename(out)
    return order
