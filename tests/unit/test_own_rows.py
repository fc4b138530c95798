"""``knn`` leaves a sample's own earlier embeddings out of its reference."""

from __future__ import annotations

import pytest
import torch
from selection_streams import B, common, make, step
from torch import Tensor

from solo_ood.selection.scorers import KNNScorer

D, N = 6, 40


def stream(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(n, D) features and the indexes of 15 samples that come again and again."""
    generator = torch.Generator().manual_seed(seed)
    feats = 1 + torch.randn(n, D, generator=generator)
    return feats, torch.randint(15, (n,), generator=generator) + 2**40


@pytest.mark.parametrize("k", [1, 3, None])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_the_kth_neighbour_is_that_of_the_other_samples_whatever_the_chunks(k, chunk):
    rows, indexes = stream(150)
    rows[::9, 0] = float("nan")
    scorer = KNNScorer(D, N, k, min_samples=8)
    for part in zip(rows.split(chunk), indexes.split(chunk)):
        scorer.partial_fit(part[0], indexes=part[1])
    queries, own = stream(30, seed=1)
    scores = scorer.ood_score(queries, indexes=own)
    good = rows.isfinite().all(dim=1)
    held, numbers = (x[good][-N:] for x in (rows, indexes))
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], held[None], dim=2)
    for row in range(30):
        others = cosine[row][numbers != own[row]].sort(descending=True).values
        assert float(scores[row]) == pytest.approx(1 - float(others[(k or 2) - 1]), abs=1e-5)


def test_without_indexes_every_row_counts():
    rows, indexes = stream(60)
    scorer = KNNScorer(D, N, 1, min_samples=8).partial_fit(rows, indexes=indexes)
    assert scorer.ood_score(rows[-5:]).abs().max() < 1e-5
    assert scorer.ood_score(rows[-5:], indexes=indexes[-5:]).min() > 1e-4
    unknown = KNNScorer(D, N, 1, min_samples=8).partial_fit(rows)
    marks = torch.tensor([-1, -2, 0, 5, 2**62])
    assert unknown.ood_score(rows[-5:], indexes=marks).abs().max() < 1e-5


def test_indexes_that_name_other_samples_now_are_forgotten():
    scorer = KNNScorer(D, N, 1, min_samples=8)
    rows = torch.randn(8, D, generator=torch.Generator().manual_seed(0))
    scorer.partial_fit(rows, indexes=torch.arange(8))
    scorer.drop_changed_indexes(lambda index: index < 4)
    distances = scorer.ood_score(rows, indexes=torch.arange(8))
    assert distances[:4].min() > 1e-4 and distances[4:].abs().max() < 1e-5


def test_a_replay_is_not_released_for_its_own_fresh_row():
    """With k = 1 it found that very row, and nearly all of what was flagged left at once."""
    selector = make(scorer={"k": 1}, queue={"release": 0.5})
    for t in range(12):
        step(selector, list(range(B * t, B * t + B)), common(B, seed=t))
    odd = -common(1, seed=99)
    step(selector, [*range(200, 207), 300], torch.cat((common(7, seed=50), odd)))
    selector.judge_pending()
    assert 300 in selector.queue
    for t in range(4):  # its embedding is that of its fresh row, which is in the reference by now
        rows = torch.cat((common(7, seed=60 + t), odd))
        step(selector, [*range(400 + 8 * t, 407 + 8 * t), 300], rows, n_replayed=1)
    selector.judge_pending()
    assert 300 in selector.queue and selector.queue.departures["released"] == 0
