"""Each scorer against an independent oracle: scikit-learn, SciPy, counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import empirical_covariance, shrunk_covariance
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from solo_ood.scorers import KNNScorer, MahalanobisScorer, OracleScorer, RandomScorer

D = 6


def stream(n: int, seed: int = 0, offset: float = 1.0) -> Tensor:
    """(n, D) correlated features around a mean of ``offset``."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=generator)
    return torch.randn(n, D, generator=generator) @ mixing + offset


def feed(scorer, rows: Tensor, chunk: int = 7):
    for part in rows.split(chunk):
        scorer.partial_fit(part)
    return scorer


@pytest.mark.parametrize("n", [12, 150])  # of 40 rows held: before and after wrap-around
@pytest.mark.parametrize("k", [1, 5])
def test_knn_is_the_cosine_distance_to_the_kth_of_the_newest_rows(n, k):
    rows, queries = stream(n), stream(9, seed=1)
    scores = feed(KNNScorer(D, 40, k, min_samples=8), rows).ood_score(queries)
    oracle = NearestNeighbors(n_neighbors=k, metric="cosine").fit(rows[-40:].numpy())
    expected = oracle.kneighbors(queries.numpy())[0][:, -1]
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("n", "k"), [(150, 2), (300, 3), (399, 3), (650, 4)])
def test_the_default_k_of_knn_is_1_percent_of_the_rows_held_and_at_least_2(n, k):
    rows, queries = stream(n), stream(9, seed=1)
    default = feed(KNNScorer(D, 400, None, min_samples=8), rows, 50).ood_score(queries)
    explicit = feed(KNNScorer(D, 400, k, min_samples=8), rows, 50).ood_score(queries)
    torch.testing.assert_close(default, explicit, rtol=0, atol=0)


def test_knn_without_normalisation_takes_dot_products():
    rows, queries = stream(20), stream(4, seed=1)
    scores = feed(KNNScorer(D, 40, 3, min_samples=8, normalize=False), rows).ood_score(queries)
    expected = 1 - np.sort(queries.numpy() @ rows.numpy().T, axis=1)[:, -3]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_mahalanobis_equals_scikit_learn_and_scipy(shrinkage, normalize):
    rows, queries = stream(200), stream(9, seed=1)
    scorer = feed(MahalanobisScorer(D, None, shrinkage, 8, normalize), rows)
    if normalize:
        rows, queries = (x / x.norm(dim=1, keepdim=True) for x in (rows, queries))
    x = rows.double().numpy()
    covariance = shrunk_covariance(empirical_covariance(x), shrinkage)
    np.testing.assert_allclose(scorer.moments.mean.numpy(), x.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(scorer.covariance.numpy(), covariance, rtol=1e-4, atol=1e-5)
    precision = np.linalg.inv(covariance)
    expected = [mahalanobis(q, x.mean(axis=0), precision) ** 2 for q in queries.double().numpy()]
    scores = scorer.ood_score(queries if normalize else stream(9, seed=1))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-3)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=8))
def test_any_chunking_of_a_stream_gives_the_same_moments_even_far_from_zero(cuts):
    rows = stream(60, offset=300.0)  # sums of squares would lose the covariance in float32
    scorer = MahalanobisScorer(D, None, 0.0, min_samples=8, normalize=False)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 60]):
        scorer.partial_fit(rows[start:stop])
    x = rows.double().numpy()
    np.testing.assert_allclose(scorer.moments.mean.numpy(), x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scorer.covariance.numpy(), empirical_covariance(x), atol=5e-3)
    assert scorer.moments.n == 60


def test_a_window_bounds_the_effective_number_and_fades_the_older_samples():
    rows = torch.cat((stream(60), stream(60, seed=1, offset=5.0)))
    scorer = MahalanobisScorer(D, 50, 0.0, min_samples=8, normalize=False)
    weights = np.zeros(0)
    for part in rows.split(20):
        scorer.partial_fit(part)
        weights = np.append(weights, np.ones(20))
        weights *= min(1, 50 / weights.sum())
    assert scorer.moments.n == 50
    x = rows.double().numpy()
    np.testing.assert_allclose(
        scorer.moments.mean.numpy(), np.average(x, axis=0, weights=weights), 1e-4
    )
    expected = np.cov(x.T, aweights=weights, bias=True)
    np.testing.assert_allclose(scorer.covariance.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_between_two_factorisations_mahalanobis_scores_with_the_older_moments():
    scorer, queries = MahalanobisScorer(D, min_samples=8, refresh=3), stream(4, seed=1)
    first = feed(scorer, stream(24), 8).ood_score(queries)  # 3 updates: just factorised
    assert torch.equal(feed(scorer, stream(16, seed=2, offset=9), 8).ood_score(queries), first)
    assert not torch.equal(feed(scorer, stream(8, seed=3), 8).ood_score(queries), first)


def test_a_covariance_without_a_factor_scores_nan_instead_of_noise():
    rows = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))  # rank 7 of 16
    scorer = MahalanobisScorer(16, shrinkage=0.0, min_samples=8, normalize=False).partial_fit(rows)
    assert scorer.ood_score(rows + 1).isnan().all()


def test_random_scores_are_uniform_follow_the_seed_and_restart_on_reset():
    feats = torch.zeros(2000, D)
    first, same, other = (RandomScorer(D, 8, seed).partial_fit(feats) for seed in (3, 3, 4))
    scores = first.ood_score(feats)
    np.testing.assert_allclose(np.quantile(scores, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert torch.equal(scores, same.ood_score(feats))
    assert not torch.equal(scores, other.ood_score(feats))
    assert torch.equal(scores, first.fit(feats).ood_score(feats))


def test_the_oracle_orders_samples_by_the_frequency_of_their_class():
    targets = torch.tensor([0] * 5 + [1] * 3 + [2] * 4 + [-1] * 9)
    scorer = OracleScorer(D, 4, min_samples=8).partial_fit(torch.zeros(21, D), targets)
    by_class = [scorer.ood_score(torch.zeros(50, D), torch.full((50,), c)) for c in (0, 2, 1, 3)]
    for frequent, rarer in zip(by_class, by_class[1:]):
        assert frequent.max() < rarer.min()
    assert all(len(scores.unique()) > 40 for scores in by_class)  # ties in a class are broken


def test_the_oracle_never_calls_unlabelled_samples_rare():
    feats, targets = torch.zeros(8, D), torch.full((8,), -1)
    scorer = OracleScorer(D, 4, min_samples=8).partial_fit(feats, targets)
    assert scorer.ood_score(feats, targets).eq(float("-inf")).all()
    assert scorer.counts.sum() == 0


def test_the_oracle_asks_for_targets():
    with pytest.raises(ValueError, match=r"expected targets \(N,\), got None"):
        OracleScorer(D, 4).partial_fit(torch.zeros(8, D))
