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

from solo_ood.errors import UserError
from solo_ood.selection.scorers import (
    ExemplarScorer,
    KNNScorer,
    MahalanobisScorer,
    OracleScorer,
    RandomFreshScorer,
    RandomScorer,
)

D = 6
NAN, INF = float("nan"), float("inf")


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


whole = st.integers(-3, 3).map(float)  # their dot products are exact
strange = st.one_of(whole, whole, whole, st.sampled_from([NAN, INF, 1e16]))
rows_of_2 = st.lists(st.tuples(strange, strange), max_size=9)


@settings(max_examples=80, deadline=None)
@given(
    chunks=st.lists(rows_of_2, max_size=8),
    n=st.integers(2, 12),
    k=st.one_of(st.none(), st.integers(1, 3)),
    queries=st.lists(st.tuples(whole, whole), min_size=1, max_size=4),
)
def test_knn_equals_brute_force_over_the_newest_usable_rows(chunks, n, k, queries):
    scorer = KNNScorer(2, n, min(k, n) if k else None, min_samples=0, normalize=False)
    normalised_or_nan: list[tuple[float, float]] = []
    for chunk in chunks:
        scorer.partial_fit(torch.tensor(chunk).reshape(-1, 2))
        normalised_or_nan += [row for row in chunk if all(abs(x) < 1e16 for x in row)]
    assert scorer.n_fed == sum(map(len, chunks))
    kth = min(k, n) if k else 2  # of less than 300 rows, 1 % is less than 2
    for query, score in zip(queries, scorer.ood_score(torch.tensor(queries)).tolist()):
        products = sorted(sum(a * b for a, b in zip(query, row)) for row in normalised_or_nan[-n:])
        assert score == 1 - products[-kth] if len(products) >= kth else score != score


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


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=8),
    bad=st.dictionaries(st.integers(0, 59), st.sampled_from([NAN, INF, -INF, 1e30]), max_size=30),
    normalize=st.booleans(),
)
def test_any_chunking_of_a_stream_gives_the_moments_of_its_usable_rows(cuts, bad, normalize):
    # Far from zero, where sums of squares would lose the covariance in float32.
    rows = stream(60, offset=3.0 if normalize else 300.0)
    dirty = rows.clone()
    for row, value in bad.items():
        dirty[row, row % D] = value
    scorer = MahalanobisScorer(D, None, 0.0, min_samples=8, normalize=normalize)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 60]):
        scorer.partial_fit(dirty[start:stop])
    x = np.delete(rows.double().numpy(), sorted(bad), axis=0)
    if normalize:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(scorer.moments.mean.numpy(), x.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scorer.covariance.numpy(), empirical_covariance(x), atol=5e-3)
    assert scorer.moments.n == len(x)
    # The factor is that of the last update, whichever rows were in it.
    queries = stream(9, seed=1, offset=3.0)
    once = MahalanobisScorer(D, None, 0.0, min_samples=8, normalize=normalize)
    once.partial_fit(torch.tensor(np.delete(rows.numpy(), sorted(bad), axis=0)))
    torch.testing.assert_close(
        scorer.ood_score(queries), once.ood_score(queries), rtol=0.02, atol=1e-3
    )


def test_n_reference_bounds_the_effective_number_of_samples():
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


def test_a_distance_beyond_float32_is_the_largest_number_which_thresholds_learn():
    rows = 1 + 1e-6 * torch.randn(99, D, generator=torch.Generator().manual_seed(0))
    scorer = MahalanobisScorer(D, min_samples=8, normalize=False).partial_fit(rows)
    scores = scorer.ood_score(torch.tensor([[1.0] * D, [1e14] * D]))
    assert scores.isfinite().all() and scores[1] == torch.finfo(torch.float32).max


@pytest.mark.parametrize("scorer", [MahalanobisScorer, ExemplarScorer])
def test_one_endless_row_does_not_end_the_scores_of_a_stream_without_normalisation(scorer):
    rows, queries = stream(100), stream(9, seed=1)
    scorer = scorer(D, min_samples=8, normalize=False)
    if isinstance(scorer, ExemplarScorer):
        scorer.set_exemplars(stream(5, seed=2))
    before = scorer.partial_fit(rows).ood_score(queries)
    scorer.partial_fit(torch.full((1, D), 1e20))  # its square is not in float32
    assert torch.equal(scorer.ood_score(queries), before)


def test_random_scores_are_uniform_and_fixed_per_sample_and_seed():
    feats, indexes = torch.zeros(2000, D), torch.arange(2000)
    first, same, other = (RandomScorer(D, 8, seed).partial_fit(feats) for seed in (3, 3, 4))
    scores = first.ood_score(feats, indexes=indexes)
    np.testing.assert_allclose(np.quantile(scores, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert len(scores.unique()) == 2000
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scores[order], same.ood_score(feats, indexes=order))
    assert abs(np.corrcoef(scores, other.ood_score(feats, indexes=indexes))[0, 1]) < 0.1


@pytest.mark.parametrize("scorer", [RandomScorer(D), OracleScorer(D, 4)])
def test_random_scores_need_indexes(scorer):
    targets = torch.zeros(256, dtype=torch.int64)
    scorer.partial_fit(torch.zeros(256, D), targets)
    with pytest.raises(UserError, match=r"expected the dataset indexes \(N,\).*random-fresh"):
        scorer.ood_score(torch.zeros(256, D), targets)


def test_fresh_random_scores_are_uniform_follow_the_seed_and_restart_on_reset():
    feats = torch.zeros(2000, D)
    first, same, other = (RandomFreshScorer(D, 8, seed).partial_fit(feats) for seed in (3, 3, 4))
    scores = first.ood_score(feats)
    np.testing.assert_allclose(np.quantile(scores, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert torch.equal(scores, same.ood_score(feats))
    assert not torch.equal(scores, other.ood_score(feats))
    assert torch.equal(scores, first.fit(feats).ood_score(feats))


def test_the_oracle_orders_samples_by_the_frequency_of_their_class():
    targets = torch.tensor([0] * 5 + [1] * 3 + [2] * 4 + [-1] * 9)
    scorer = OracleScorer(D, 4, min_samples=8).partial_fit(torch.zeros(21, D), targets)
    by_class = [
        scorer.ood_score(torch.zeros(50, D), torch.full((50,), c), torch.arange(50))
        for c in (0, 2, 1, 3)
    ]
    for frequent, rarer in zip(by_class, by_class[1:]):
        assert frequent.max() < rarer.min()
    assert all(len(scores.unique()) > 40 for scores in by_class)  # ties in a class are broken


def test_the_oracle_never_calls_unlabelled_samples_rare():
    feats, targets = torch.zeros(8, D), torch.full((8,), -1)
    scorer = OracleScorer(D, 4, min_samples=8).partial_fit(feats, targets)
    assert scorer.ood_score(feats, targets, torch.arange(8)).eq(float("-inf")).all()
    assert scorer.counts.sum() == 0


def test_oracle_tie_breaks_never_change_the_rank():
    classes, n = 1000, 200_000  # float32 has 14 bits beside such a rank
    scorer = OracleScorer(D, classes, min_samples=8)
    scorer.partial_fit(torch.zeros(classes, D), torch.arange(classes))
    scorer.counts += torch.arange(classes)
    feats, rarest = torch.zeros(n, D), torch.zeros(n, dtype=torch.int64)
    scores = scorer.ood_score(feats, rarest, torch.arange(n))
    assert scores.min() == classes - 1 and scores.max() < classes


def test_the_oracle_asks_for_targets():
    with pytest.raises(ValueError, match=r"expected targets \(N,\), got None"):
        OracleScorer(D, 4).partial_fit(torch.zeros(8, D))
