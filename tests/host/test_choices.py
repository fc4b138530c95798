"""A scorer or a threshold of another package: an entry in the table is all that it takes."""

from __future__ import annotations

import pytest
import torch

from solo_ood.selection.scorers import Scorer, make_scorer
from solo_ood.selection.threshold import Threshold, make_threshold
from solo_ood.settings.choices import SCORERS, THRESHOLDS, ScorerChoice, ThresholdChoice
from solo_ood.settings.field import choices_of, help_of, range_of, setting
from solo_ood.settings.schema import ScorerConfig, ThresholdConfig, parse

OOD = "method_kwargs.ood."
SMALL = ("augmentations.1.num_crops=0", "augmentations.1.crop_size=32",
         f"{OOD}start=0.0", f"{OOD}scorer.n_reference=64", f"{OOD}scorer.min_samples=8",
         f"{OOD}threshold.n=16", f"{OOD}threshold.percentile=0.5")  # fmt: skip


class Length(Scorer):
    """The distance of a sample's length from the mean length so far; an outsider's scorer."""

    def __init__(self, dim, min_samples, n_reference, power):
        super().__init__(dim, min_samples, normalize=False)
        self.n_reference, self.power = n_reference, power
        self.register_buffer("total", torch.zeros(()))

    def reset(self):
        self.total.zero_()
        self.n_fed = 0
        return self

    def _learn(self, feats, targets, indexes):
        self.total += feats.norm(dim=1).sum()

    def _score(self, feats, targets, indexes):
        return (feats.norm(dim=1) - self.total / self.n_fed).abs() ** self.power


class EverySecond(Threshold):
    """Flags every second sample of a block, whatever its score; an outsider's threshold."""

    def _verdicts(self, scores):
        if len(scores) < self.n:
            return torch.zeros(0, dtype=torch.bool)
        self.block = scores[: self.n].sort().values
        return torch.arange(self.n) % 2 == 0

    @property
    def rate_bound(self):
        return float("nan")


@pytest.fixture
def outsiders(monkeypatch):
    takes = ("dim", "min_samples", "n_reference")
    mine = ScorerChoice(Length, takes, "by length", {"power": 2})
    monkeypatch.setitem(SCORERS, "length", mine)
    monkeypatch.setitem(THRESHOLDS, "second", ThresholdChoice(EverySecond, ("percentile", "n")))


def test_outsiders_train_in_the_host_by_the_tables_alone(
    outsiders, compose, build, loader, trainer
):
    cfg = compose(*SMALL, f"{OOD}scorer.name=length", f"{OOD}threshold.name=second")
    model = build(cfg)
    trainer(max_steps=8).fit(model, loader(cfg))
    selector = model.selector
    assert isinstance(selector.scorer, Length) and isinstance(selector.threshold, EverySecond)
    assert (selector.scorer.n_reference, selector.scorer.power) == (64, 2)
    counts = selector.counts
    assert counts["judged"] > 0 and counts["flagged"] == counts["judged"] / 2
    assert counts["replayed"] > 0


def test_outsiders_are_names_like_any_other(outsiders):
    with pytest.raises(ValueError, match=r"scorer\.name: .*length.* Did you mean 'length'\?"):
        parse({"scorer": {"name": "lenght"}})
    with pytest.raises(ValueError, match=r"threshold\.name: .*second.* Did you mean 'second'\?"):
        parse({"threshold": {"name": "secnod"}})
    (name,) = (f for f in ScorerConfig.__dataclass_fields__.values() if f.name == "name")
    assert choices_of(name) is SCORERS and "length (by length)" in help_of(name)


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_of_the_table_is_built_from_what_it_says_it_takes(name):
    scorer = make_scorer(ScorerConfig(name, min_samples=5), dim=4, num_classes=3, seed=1)
    assert isinstance(scorer, Scorer) and scorer.dim == 4 and scorer.min_samples == 5


@pytest.mark.parametrize("name", THRESHOLDS)
def test_every_threshold_of_the_table_is_built_from_what_it_says_it_takes(name):
    assert make_threshold(ThresholdConfig(name, n=50)).n == 50


def test_stated_ranges_are_the_checked_ones():
    fields = ScorerConfig.__dataclass_fields__
    assert range_of(fields["n_reference"]) == "in [2, 2^20]"
    assert range_of(fields["ridge"]) == "in (0, 1e6]"
    assert range_of(fields["exemplar_every"]) == "at least 1"
    assert range_of(fields["min_samples"], ScorerConfig(), "scorer.") == (
        "in [2, scorer.n_reference = 1024]"
    )
    with pytest.raises(TypeError, match="unknown bound: max"):
        setting(1, max=2)
