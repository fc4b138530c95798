"""How few samples are replayed how often: a control must not differ from a detector in it."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from solo_ood.replay.mixing import drawn_order
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.schema import parse

N, B, EPOCHS, CLASSES = 20_000, 128, 3, 10


@cache
def concentration(name: str) -> dict[str, float]:
    """Pass a long-tailed data set ``EPOCHS`` times, with replays as in training."""
    generator = torch.Generator().manual_seed(1)
    frequency = 0.01 ** (torch.arange(CLASSES) / (CLASSES - 1))  # 100 times as many at the head
    labels = torch.multinomial(frequency, N, replacement=True, generator=generator)
    selector = RareSelector(parse({"scorer": {"name": name}}), 2, CLASSES)
    m = B // 4
    for _ in range(EPOCHS):
        for fresh in torch.randperm(N, generator=generator).split(B):
            if len(fresh) < B:
                continue  # drop_last
            rare = torch.tensor(selector.queue.draw(m), dtype=torch.int64)
            order = drawn_order(B, len(rare), selector.seed, selector.queue.step)
            indexes = torch.cat((fresh[order[: B - len(rare)]], rare))
            feats = torch.randn(B, 2, generator=generator)
            selector.step(indexes, feats, labels[indexes], len(rare))
    selector.judge_pending()
    return selector.metrics()


@pytest.mark.parametrize("key", ["distinct_replayed", "replays_per_sample", "share_released"])
def test_random_picks_are_as_concentrated_as_the_oracle_picks(key):
    random, oracle = concentration("random"), concentration("oracle")
    assert random["flag_rate"] == pytest.approx(oracle["flag_rate"], rel=0.05)
    assert random[key] == pytest.approx(oracle[key], rel=0.1, abs=0.02)


def test_fresh_random_picks_are_many_samples_each_replayed_rarely():
    fresh, oracle = concentration("random-fresh"), concentration("oracle")
    assert fresh["flag_rate"] == pytest.approx(oracle["flag_rate"], rel=0.05)
    assert fresh["distinct_replayed"] > 1.5 * oracle["distinct_replayed"]
    assert fresh["replays_per_sample"] < 0.67 * oracle["replays_per_sample"]
    assert fresh["share_released"] > 0.5 > oracle["share_released"]
