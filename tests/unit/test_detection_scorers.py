"""The scorers on a whole fit split: those of the training method, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solo_ood.detection import scorers
from solo_ood.detection.detectors import detector
from solo_ood.detection.feats import Feats
from solo_ood.selection.scorers import make_scorer
from solo_ood.settings.schema import ScorerConfig

D = 16


def rows(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (1 + rng.normal(size=(n, D)) * np.geomspace(2, 0.2, D)).astype(np.float32)


@pytest.mark.parametrize("n", [2, 50, 330])
@pytest.mark.parametrize("name", ["knn", "mahalanobis", "exemplar"])
def test_scores_are_those_of_the_training_methods_scorer(name, n, monkeypatch):
    monkeypatch.setattr(scorers, "_ROWS", 7)  # several blocks of each kind
    monkeypatch.setattr(scorers, "_CELLS", 3 * n)
    fit, test, exemplars = rows(n), rows(40, seed=1), rows(6, seed=2)
    test[3] = np.nan
    test[5] *= 1e16
    scorer = make_scorer(ScorerConfig(name=name, n_reference=n, min_samples=2), D)
    scorer.fit(torch.from_numpy(fit))
    if name == "exemplar":
        scorer.set_exemplars(torch.from_numpy(exemplars))
    expected = scorer.ood_score(torch.from_numpy(test)).numpy()
    found = detector(name).fit(Feats(fit), 0)(Feats(test), Feats(exemplars))
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 5]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["knn", "mahalanobis", "exemplar"])
def test_fit_rows_that_are_not_finite_are_left_out_and_none_is_changed(name):
    fit, test, exemplars = rows(60), rows(9, seed=1), rows(4, seed=2)
    broken = np.insert(fit, [0, 7], np.inf, axis=0)
    before = broken.copy()
    scored = [
        detector(name).fit(Feats(one), 0)(Feats(test), Feats(exemplars)) for one in (fit, broken)
    ]
    np.testing.assert_array_equal(*scored)
    np.testing.assert_array_equal(broken, before)


@pytest.mark.parametrize("name", ["knn", "mahalanobis", "exemplar"])
def test_without_enough_to_learn_from_scores_are_nan(name):
    scores = detector(name).fit(Feats(rows(1)), 0)(Feats(rows(3)), Feats(rows(2)))
    assert np.isnan(scores).all()
