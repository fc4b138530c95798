"""Find what the regions of exemplars show in other images, by a linear classifier of patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo_ood.detection.feats import Feats, required
from solo_ood.errors import UserError


def region_maps(images: Feats, exemplars: Feats | None) -> Iterator[Tensor]:
    """Yield of each image how likely its patches look like the exemplars' regions: (h * w,)."""
    for block in region_map_blocks(images, exemplars):
        yield from block


def region_map_blocks(images: Feats, exemplars: Feats | None) -> Iterator[Tensor]:
    """Yield the ``region_maps`` of some images at a time: (B, h * w).

    A logistic regression tells the exemplars' patches inside the regions from those outside, each
    patch counting by its share of both. Linear classifiers of patch features are how
    self-supervised networks are judged on segmentation (Oquab et al., 2023, arXiv:2304.07193).

    Raises:
        UserError: if the regions hold nothing, or all of the exemplars.
    """
    known = required(exemplars)
    rows = torch.cat(list(required(known.patches))).numpy()
    model = _linear_classifier(rows, required(known.regions).reshape(-1, 2))
    weights = torch.from_numpy(model.coef_[0].astype(np.float32))
    bias = float(model.intercept_[0])
    for patches in required(images.patches).blocks():
        # The product of a unit vector, without a copy that has length 1.
        norms = torch.linalg.vector_norm(patches, dim=2).clamp(min=1e-12)
        yield torch.sigmoid((patches @ weights) / norms + bias)


def _linear_classifier(rows: np.ndarray, shares: np.ndarray) -> Any:
    """Return a logistic regression of rows (M, D') which belong by ``shares`` (M, 2) to 1 and 0.

    Raises:
        UserError: if only one class is there.
    """
    from sklearn.linear_model import LogisticRegression

    matters, others = bool(shares[:, 0].any()), bool(shares[:, 1].any())
    if not (matters and others):
        raise UserError(
            "regions of the exemplars",
            expected="patches that show what matters, and others",
            got="none of the others" if matters else "only others",
            remedy="Give exemplars that show it, beside something else, in the middle that the "
            "network sees.",
        )
    weights = shares.T.ravel()
    labels = np.arange(len(weights)) < len(rows)
    counts = weights > 0
    both = np.concatenate([rows, rows])[counts]
    return LogisticRegression(max_iter=1000).fit(both, labels[counts], weights[counts])
