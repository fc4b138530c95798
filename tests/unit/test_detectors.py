"""Every detector by its sign, and against scikit-learn, SciPy or its formula where there is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import expit
from sklearn.covariance import shrunk_covariance
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import normalize

from solo_ood.detection import feats
from solo_ood.detection.detectors import DETECTORS, Detector, detector
from solo_ood.detection.feats import Feats, PatchView

D, GRID = 8, (2, 3)  # features; rows and columns of patches
UNSUPERVISED = [one for one in DETECTORS.values() if one.learns and not one.exemplars]
WITH_EXEMPLARS = [one for one in DETECTORS.values() if one.exemplars]
WHOLE_EXEMPLARS = [one for one in WITH_EXEMPLARS if not one.regions]


def cone(n: int, seed: int = 0, sign: float = 1.0) -> Feats:
    """n images around the direction of ones (or minus ones); of their patches the first is."""
    rng = np.random.default_rng(seed)
    pooled = (sign + 0.3 * rng.normal(size=(n, D))).astype(np.float32)
    patches = (1 + 0.3 * rng.normal(size=(n, *GRID, D))).astype(np.float16)
    patches[:, 0, 0] *= sign  # one odd patch is enough
    regions = np.zeros((n, GRID[0] * GRID[1], 2), np.float32)
    regions[:, 0] = 0.75, 0.25
    regions[:, 1:, 1] = 1
    return Feats(pooled, PatchView(patches), regions)


def scored(one: Detector, fit: Feats, test: Feats, exemplars: Feats | None = None, seed: int = 0):
    if one.exemplars and exemplars is None:
        exemplars = cone(5, seed=9)
    scores = one.fit(fit, seed)(test, exemplars)
    assert scores.shape == (len(test),) and np.isfinite(scores).all()
    return scores


def with_memory(one: Detector, patches: int) -> Detector:
    """Return the detector, which keeps so many patches if it keeps some."""
    if "memory" not in one.settings:
        return one
    return replace(one, settings={**one.settings, "memory": patches})


def each(ones: list[Detector]):
    return pytest.mark.parametrize("one", ones, ids=lambda one: one.name)


@each(UNSUPERVISED)
def test_what_is_unlike_the_stream_scores_higher(one):
    fit, usual, odd = cone(200), cone(30, seed=1), cone(30, seed=2, sign=-1)
    assert scored(one, fit, odd).min() > scored(one, fit, usual).max()


@each(WHOLE_EXEMPLARS)
def test_ten_exemplars_find_what_is_nearer_to_the_stream_than_the_others(one):
    rng = np.random.default_rng(0)
    pooled = 2 + rng.normal(size=(600, 32)) * np.geomspace(3, 0.3, 32)
    rare = rng.random(600) < 0.2
    pooled[rare] = 2 + 0.7 * (pooled[rare] - 2)
    pooled[rare, -8:] += 0.8  # the planted direction
    feats = Feats(pooled.astype(np.float32))
    fit, test, truth = feats[np.arange(300)], feats[np.arange(300, 600)], rare[300:]
    right, wrong = (fit[np.flatnonzero(rare[:300] == is_rare)[:10]] for is_rare in (True, False))
    found = roc_auc_score(truth, scored(one, fit, test, right))
    assert found > max(0.88, roc_auc_score(truth, scored(one, fit, test, wrong)) + 0.02)
    assert roc_auc_score(truth, scored(detector("mahalanobis"), fit, test)) < 0.6


@pytest.mark.parametrize(("n", "k"), [(150, 2), (430, 4)])
def test_knn_is_the_cosine_distance_to_the_kth_neighbour_in_all_of_the_fit_split(n, k):
    fit, test = cone(n), cone(20, seed=1)
    oracle = NearestNeighbors(n_neighbors=k, metric="cosine").fit(fit.pooled)
    expected = oracle.kneighbors(test.pooled)[0][:, -1]
    np.testing.assert_allclose(scored(detector("knn"), fit, test), expected, atol=1e-5)


def test_mahalanobis_is_that_of_all_fit_samples_with_a_shrunk_covariance():
    fit, test = cone(300), cone(20, seed=1)
    rows, queries = normalize(fit.pooled), normalize(test.pooled)
    covariance = shrunk_covariance(np.cov(rows.T, bias=True), shrinkage=0.1)
    inverse = np.linalg.inv(covariance)
    expected = cdist(queries, rows.mean(axis=0, keepdims=True), "mahalanobis", VI=inverse)
    scores = scored(detector("mahalanobis"), fit, test)
    np.testing.assert_allclose(scores, expected[:, 0] ** 2, rtol=1e-3)


def test_pca_is_the_squared_residual_of_the_leading_directions_that_hold_65_percent():
    fit, test = cone(100), cone(20, seed=1)
    rows, queries = normalize(fit.pooled), normalize(test.pooled)
    mean = rows.mean(axis=0)
    _, sizes, directions = np.linalg.svd(rows - mean)
    held = np.cumsum(sizes**2) / (sizes**2).sum()
    kept = directions[: 1 + int(np.argmax(held >= 0.65))]
    residual = (queries - mean) - (queries - mean) @ kept.T @ kept
    expected = np.square(residual).sum(axis=1)
    np.testing.assert_allclose(scored(detector("pca"), fit, test), expected, rtol=1e-3)


@pytest.mark.parametrize("seed", [0, 3])
def test_scikit_learns_detectors_are_its_own_with_the_sign_turned(seed):
    fit, test = cone(100), cone(20, seed=1)
    rows, queries = normalize(fit.pooled), normalize(test.pooled)
    forest = IsolationForest(random_state=seed).fit(rows)
    found = scored(detector("isolation-forest"), fit, test, seed=seed)
    np.testing.assert_allclose(found, -forest.score_samples(queries))
    lof = LocalOutlierFactor(n_neighbors=20, novelty=True).fit(rows)
    found = scored(detector("lof"), fit, test, seed=seed)
    np.testing.assert_allclose(found, -lof.score_samples(queries), rtol=1e-4)


def test_patch_knn_is_the_mean_distance_of_the_most_unusual_tenth_of_the_patches():
    rng = np.random.default_rng(0)
    fit, test = (PatchView(rng.normal(size=(n, 4, 5, D)).astype(np.float16)) for n in (12, 5))
    blank = np.zeros((12, 1), np.float32)
    found = scored(detector("patch-knn"), Feats(blank, fit), Feats(blank[:5], test))
    memory = fit.array.reshape(-1, D).astype(np.float32)
    for row, score in enumerate(found):
        patches = test.array[row].reshape(-1, D).astype(np.float32)
        nearest = cdist(patches, memory, "cosine").min(axis=1)
        assert score == pytest.approx(np.sort(nearest)[-2:].mean(), abs=1e-4)


def test_the_patch_memory_is_bounded_and_every_image_may_be_in_it():
    one = with_memory(detector("patch-knn"), 5)
    fit = Feats(np.zeros((8, 1), np.float32), PatchView(np.eye(8, dtype=np.float16)[:, None, None]))
    held = np.array([scored(one, fit, fit, seed=seed) < 0.5 for seed in range(30)])
    assert (held.sum(axis=1) == 5).all() and held.any(axis=0).all()


def test_exemplar_cosine_is_the_cosine_to_the_mean_of_the_unit_exemplars():
    fit, test, exemplars = cone(20), cone(9, seed=1), cone(3, seed=2, sign=-1)
    expected = cdist(test.pooled, normalize(exemplars.pooled).mean(axis=0)[None], "cosine")
    scores = scored(detector("exemplar-cosine"), fit, test, exemplars)
    np.testing.assert_allclose(scores, 1 - expected[:, 0], atol=1e-6)


@each(WHOLE_EXEMPLARS)
def test_exemplars_that_are_given_twice_or_longer_rank_the_images_the_same(one):
    fit, test, exemplars = cone(100), cone(30, seed=1), cone(4, seed=2)
    twice = Feats(np.tile(exemplars.pooled, (2, 1)) * 7)
    both = [scored(one, fit, test, given) for given in (exemplars, twice)]
    assert np.corrcoef(*both)[0, 1] > 0.9999


def objects(n: int, share: float, seed: int) -> Feats:
    """n images of 6 x 8 patches; in ``share`` of them an object, a direction of its own, hides.

    What surrounds it varies much more from image to image than it does.
    """
    rng = np.random.default_rng(seed)
    scale = np.where(np.arange(D) == 0, 0.4, 1)
    patches = scale * rng.normal(size=(n, 1, 1, D)) + 0.3 * rng.normal(size=(n, 6, 8, D))
    regions = np.tile(np.array([0, 1], np.float32), (n, 6, 8, 1))
    for row in np.flatnonzero(rng.random(n) < share):
        y, x = rng.integers(5), rng.integers(7)
        regions[row, y : y + 2, x : x + 2] = 1, 0
        patches[row, y : y + 2, x : x + 2, 0] += 3
    pooled = patches.mean(axis=(1, 2)).astype(np.float32)
    return Feats(pooled, PatchView(patches.astype(np.float16)), regions.reshape(n, -1, 2))


def test_regions_find_small_objects_that_whole_images_hide():
    test, exemplars = objects(300, 0.3, seed=0), objects(10, 1.0, seed=1)
    truth = test.regions[..., 0].any(axis=1)
    test = Feats(test.pooled, test.patches)  # only exemplars have regions

    def auroc(name: str, given: Feats) -> float:
        return roc_auc_score(truth, scored(detector(name), test, test, given))

    assert auroc("exemplar-regions", exemplars) > 0.85
    assert max(auroc(one.name, exemplars) for one in WHOLE_EXEMPLARS) < 0.7
    elsewhere = replace(exemplars, regions=np.roll(exemplars.regions, 20, axis=1))
    assert auroc("exemplar-regions", elsewhere) < 0.6


def test_the_score_by_regions_is_the_mean_probability_of_patches_that_count_by_their_shares():
    test, exemplars = objects(9, 0.5, seed=0), objects(3, 1.0, seed=1)
    exemplars.regions[:, :10, 0] = np.linspace(0, 0.6, 10)
    exemplars.regions[:, :10, 1] = np.linspace(0.4, 0, 10)  # the rest is void
    rows = np.concatenate([normalize(p) for p in exemplars.patches])
    inside, outside = exemplars.regions.reshape(-1, 2).T.astype(np.float64)

    # Each patch once for either class, with weights that may be 0, minimised by hand.
    def loss(w: np.ndarray) -> float:
        logits = rows @ w[:-1] + w[-1]
        fit = inside * np.logaddexp(0, -logits) + outside * np.logaddexp(0, logits)
        return 0.5 * w[:-1] @ w[:-1] + fit.sum()

    w = minimize(loss, np.zeros(D + 1)).x
    expected = [expit(normalize(p) @ w[:-1] + w[-1]).mean() for p in test.patches]
    found = scored(detector("exemplar-regions"), test, test, exemplars)
    np.testing.assert_allclose(found, expected, rtol=0.01)


@pytest.mark.parametrize(("side", "got"), [(0, "only others"), (1, "none of the others")])
def test_regions_that_hold_nothing_or_everything_are_an_error(side, got):
    exemplars = cone(4)
    exemplars.regions[..., side] = 0
    with pytest.raises(ValueError, match=f"regions of the exemplars: .* got {got}"):
        scored(detector("exemplar-regions"), cone(20), cone(3), exemplars)


@each(WITH_EXEMPLARS)
def test_a_fitted_model_takes_other_exemplars_each_time(one):
    fit, test, here, there = cone(100), cone(9, seed=1), cone(4, seed=2), cone(4, seed=3, sign=-1)
    model = one.fit(fit, 0)
    first, other = model(test, here), model(test, there)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(model(test, here), first)
    with pytest.raises(
        TypeError, match="without the patches, exemplars or regions that it declares"
    ):
        model(test, None)


@each([one for one in DETECTORS.values() if one.name != "random"])
def test_a_score_does_not_depend_on_the_other_images(one):
    fit, test = cone(60), cone(12, seed=1)
    model, exemplars = one.fit(fit, 0), cone(5, seed=9) if one.exemplars else None
    whole = model(test, exemplars)
    rows = np.array([7, 2, 3])
    np.testing.assert_allclose(model(test[rows], exemplars), whole[rows], rtol=1e-4, atol=1e-5)


@each(list(DETECTORS.values()))
def test_a_seed_matters_where_it_says_so_and_the_fit_split_where_it_learns(one):
    one = with_memory(one, 100)
    fit, other, test = cone(60), cone(60, seed=5), cone(12, seed=1)
    first = scored(one, fit, test)
    np.testing.assert_array_equal(scored(one, fit, test), first)
    assert np.array_equal(scored(one, fit, test, seed=1), first) != one.seeded
    assert np.array_equal(scored(one, other, test), first) != one.learns


@each(list(DETECTORS.values()))
def test_eight_fit_samples_are_enough(one):
    scored(one, cone(8), cone(3, seed=1))


def test_patches_are_read_row_by_row_as_unit_vectors():
    array = np.random.default_rng(0).normal(size=(5, *GRID, D)).astype(np.float16)
    rows = PatchView(array)[np.array([4, 1, 3])][np.array([2, 0])]
    assert len(rows) == 2 and rows.array is array  # no copy
    for patches, row in zip(rows, (3, 4)):
        expected = normalize(array[row].reshape(-1, D).astype(np.float32))
        np.testing.assert_allclose(patches, expected, rtol=1e-5)
    subset = Feats(np.arange(5.0)[:, None], PatchView(array))[np.array([3, 0])]
    assert (len(subset), subset.pooled[:, 0].tolist()) == (2, [3, 0])
    assert subset.patches.rows.tolist() == [3, 0]


@pytest.mark.parametrize("rows", [None, [1, 2, 3, 4], [4, 0, 2], [3]])
def test_patches_are_read_in_blocks_from_a_file_that_stays_as_it_is(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(feats, "_CELLS", 2 * GRID[0] * GRID[1] * D)  # two images at a time
    array = np.random.default_rng(0).normal(size=(5, *GRID, D)).astype(np.float16)
    np.save(tmp_path / "patches.npy", array)
    mapped = np.load(tmp_path / "patches.npy", mmap_mode="r+")
    view = PatchView(mapped, None if rows is None else np.array(rows))
    blocks = [block.clone() for block in view.blocks()]
    assert [len(block) for block in blocks][:-1] == [2] * (len(blocks) - 1)
    expected = array[rows or slice(None)].reshape(-1, GRID[0] * GRID[1], D)
    np.testing.assert_array_equal(np.concatenate(blocks), expected.astype(np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "patches.npy"), array)


def test_an_unknown_detector_names_the_nearest():
    with pytest.raises(ValueError, match="Unknown detector: .*Did you mean 'mahalanobis'"):
        detector("mahalanobi")
