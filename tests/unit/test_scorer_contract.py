"""What every scorer promises: sign, warm-up, numerics, and a state that can be carried on."""

from __future__ import annotations

import io
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from solo_ood.errors import UserError
from solo_ood.selection.scorers import ExemplarScorer, Scorer, make_scorer
from solo_ood.settings.schema import ScorerConfig

D, CLASSES = 6, 3
REAL = ("knn", "mahalanobis", "exemplar")
ALL = (*REAL, "random", "random-fresh", "oracle")
NAN, INF = float("nan"), float("inf")
assert_same = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)


def make(name: str) -> Scorer:
    cfg = ScorerConfig(name, n_reference=32, min_samples=8)
    scorer = make_scorer(cfg, D, CLASSES, seed=1)
    return scorer.set_exemplars(-stream(5)[0]) if isinstance(scorer, ExemplarScorer) else scorer


def stream(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(n, D) features in a cone around the all-ones direction, (n,) targets, (n,) indexes."""
    generator = torch.Generator().manual_seed(seed)
    feats = 1 + 0.2 * torch.randn(n, D, generator=generator)
    targets = torch.randint(CLASSES, (n,), generator=generator)
    return feats, targets, 1000 * seed + torch.arange(n)


def feed(scorer: Scorer, n: int, chunk: int = 5) -> Scorer:
    for part in zip(*(x.split(chunk) for x in stream(n))):
        scorer.partial_fit(*part)
    return scorer


def learnt(scorer: Scorer) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in scorer.named_buffers()}


@pytest.mark.parametrize("name", ALL)
def test_the_name_builds_the_scorer(name):
    assert type(make(name)).__name__.lower() == f"{name.replace('-', '')}scorer"


@pytest.mark.parametrize("name", REAL)
def test_points_far_from_the_stream_score_higher(name):
    scorer, (feats, *_) = feed(make(name), 60), stream(20, seed=1)
    assert scorer.ood_score(-feats).min() > scorer.ood_score(feats).max()


@pytest.mark.parametrize("name", ALL)
def test_it_is_ready_after_min_samples_and_raises_before(name):
    scorer, query = feed(make(name), 7), stream(2, seed=1)
    assert not scorer.ready
    with pytest.raises(UserError, match="expected at least 8 learnt samples, got 7"):
        scorer.ood_score(*query)
    scorer.partial_fit(*stream(1))
    assert scorer.ready and scorer.ood_score(*query).isfinite().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(4, D + 1), (D,), (4, 2, D)])
def test_features_of_another_shape_are_an_error(name, shape):
    scorer = feed(make(name), 20)
    for verb in (scorer.partial_fit, scorer.ood_score):
        with pytest.raises(ValueError, match=rf"expected shape \(N, {D}\)"):
            verb(torch.zeros(shape), *[torch.zeros(shape[0], dtype=torch.int64)] * 2)


@pytest.mark.parametrize("name", ALL)
def test_scoring_learns_nothing(name):
    scorer = feed(make(name), 40)
    before, fed = learnt(scorer), scorer.n_fed
    scorer.ood_score(*stream(30, seed=1))
    assert_same(learnt(scorer), before)
    assert scorer.n_fed == fed


@pytest.mark.parametrize("name", REAL)
def test_a_score_does_not_depend_on_its_batch_mates_or_on_earlier_calls(name):
    scorer, (feats, *_) = feed(make(name), 40), stream(10, seed=1)
    together = scorer.ood_score(feats)
    alone = torch.cat([scorer.ood_score(f[None]) for f in feats])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)  # another order of the sums


@pytest.mark.parametrize("name", ALL)
def test_the_global_rng_is_never_used(name):
    before = torch.get_rng_state()
    feed(make(name), 40).ood_score(*stream(10, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_rows_that_are_not_finite_are_never_learnt(name, bad):
    feats, *_ = stream(30)
    feats[11, 2] = bad
    dirty = make(name).partial_fit(feats)
    clean = make(name).partial_fit(feats[torch.arange(30) != 11])
    torch.testing.assert_close(learnt(dirty), learnt(clean), equal_nan=True)


@pytest.mark.parametrize("name", ALL)
def test_rows_that_are_not_finite_score_nan_and_the_others_do_not(name):
    feats, *labels = stream(4, seed=1)
    feats[:3, 2] = torch.tensor([NAN, INF, -INF])
    assert feed(make(name), 40).ood_score(feats, *labels).isnan().tolist() == [True] * 3 + [False]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_scored_in_float32(name, dtype):
    scorer, (feats, *_) = feed(make(name), 40), stream(10, seed=1)
    scores = scorer.ood_score(feats.to(dtype))
    assert scores.dtype == torch.float32
    assert torch.equal(scores, scorer.ood_score(feats.to(dtype).float()))


@pytest.mark.parametrize("name", REAL)
def test_autocast_changes_nothing(name):
    plain = feed(make(name), 40).ood_score(stream(10, seed=1)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = feed(make(name), 40).ood_score(stream(10, seed=1)[0])
    assert torch.equal(scores, plain)


@pytest.mark.parametrize("name", ALL)
def test_reset_forgets_everything_and_fit_starts_afresh(name):
    used, new = feed(make(name), 70), make(name)
    assert_same(learnt(used.reset()), learnt(new))
    assert not used.ready
    used, new = feed(make(name), 70).fit(*stream(12)), new.fit(*stream(12))
    assert torch.equal(used.ood_score(*stream(5, seed=1)), new.ood_score(*stream(5, seed=1)))


@pytest.mark.parametrize("name", ALL)
def test_a_state_saved_through_a_parent_module_goes_on_as_if_never_stopped(name):
    source = nn.ModuleDict({"scorer": feed(make(name), 71)})  # past the 32 rows of the reference
    target = nn.ModuleDict({"scorer": make(name)})
    source["scorer"].ood_score(*stream(3))  # random-fresh moves its generator
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    for step in range(12):  # longer than the refresh period of the Mahalanobis factor
        batch = stream(5, seed=10 + step)
        scores = [m["scorer"].partial_fit(*batch).ood_score(*batch) for m in (source, target)]
        assert torch.equal(*scores)
    assert_same(learnt(target["scorer"]), learnt(source["scorer"]))
