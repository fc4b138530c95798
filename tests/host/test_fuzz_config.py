"""Whatever stands in ``method_kwargs.ood`` either works or is one clear line of our own."""

from __future__ import annotations

import io
import math
import random
import re
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from solo_ood.errors import UserError
from solo_ood.selection.scorers import ExemplarScorer
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.choices import SCORERS, THRESHOLDS
from solo_ood.settings.schema import (
    MOST_KEPT,
    MixConfig,
    OODConfig,
    QueueConfig,
    ScorerConfig,
    ThresholdConfig,
    parse,
    replay_rows,
)

D, CLASSES = 6, 3
ONE_LINE = re.compile(r"\S[^\n]*: expected [^\n]+, got [^\n]*\. [A-Z][^\n]*[.?]")
NAN, INF = float("nan"), float("inf")

# What is right for each key: ordinary values, and the ends of the range.
VALID: dict[str, list[Any]] = {
    "enabled": [True, False, "true", "off", 1],
    "start": [0.0, 0.2, 0.99, 0, "0.5", 1e-300],
    "seed": [None, 0, 1, 7, 2**63 - 1, "3"],
    "rare_classes": [None, [], [0], [1, 2], (2,), [2**62], ["1"]],
    "scorer.name": [*SCORERS],
    "scorer.n_reference": [2, 8, 40, 64, 1000, "32"],
    "scorer.min_samples": [2, 3, 8, 16, 40, "4"],
    "scorer.k": [None, 1, 2, 3, 8],
    "scorer.shrinkage": [0.0, 0.1, 1.0, 1, 1e-300],
    "scorer.exemplars": [[0, 1, 2], [12, "a/b.jpg"], (3,), [0] * 20],
    "scorer.ridge": [0.02, 1e-300, 1e-6, 10, 1e6],
    "scorer.exemplar_every": [1, 2, 50, 10**30],
    "scorer.normalize": [True, False, "no"],
    "scorer.feats": ["train", "eval"],
    "threshold.name": [*THRESHOLDS],
    "threshold.percentile": [0.01, 0.5, 0.8, 0.95, 0.999, 1e-300],
    "threshold.upper_percentile": [None, 0.97, 0.99],
    "threshold.n": [20, 40, 64, 1000, "32", None],
    "queue.capacity": [1, 2, 8, 64, MOST_KEPT],
    "queue.max_replays": [None, 1, 2, 16, 10**30],
    "queue.max_replays_per_run": [None, 1, 3, 10**30],
    "queue.max_replays_per_epoch": [None, 1, 2.5, 1e-310, 2**20],
    "queue.min_age": [0, 1, 3, 10**30],
    "queue.min_distance": [None, None, 1e-300, 0.3, 2],
    "queue.release": [None, 0.0, 0.3, 0.99, 1e-300],
    "queue.store": ["indexes", "crops"],
    "mix.mode": ["replace", "append"],
    "mix.ratio": [0.0, 0.13, 0.25, 0.5, 0.9, 0],
    "mix.ratio_end": [None, None, 0.0, 0.25, 0.9],
    "mix.num_workers": [None, 0, 1, 256],
}


class Foreign:
    """An object that no configuration can hold, and that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def nested_list(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def nonsense(rng: random.Random) -> Any:
    """Return a value that is wrong for most keys: of another type, far too large, not a number."""
    numbers = [0, 1, -1, 2, 3, 7, 255, 257, 2**20 + 1, 10**12, 2**63, 2**64, 10**30]
    return rng.choice(
        [
            *numbers,
            *(-x for x in numbers),
            *(10**400, -(10**5000), 0.5, 1.0, 1.5, -0.1, 1e-9, 1e9, 1e308, -1e308, NAN, INF, -INF),
            *("", " ", "nan", "inf", "-inf", "1e400", "0x10", "1_000", "1,5", "null", "None", "~"),
            *("knn", "kn", "KNN", "eval", "window", "true", "???", "${x}", "${", "${oc.env:NO}"),
            *("${oc.env:HOME}", "9" * 5000, "x" * 200_000, "a\0b", "\n", "é", "."),
            *(None, True, False, [], {}, (), [None], [1.5], [[1]], [{}], ["a", 1], [True], [NAN]),
            *({"a": 1}, {1: 2}, {None: None}, {"name": "knn"}, (1, 2), [10**30], [-1], ["???"]),
            *(set(), {1, 2}, b"knn", range(3), 1j, object(), Foreign(), int, len, ...),
            *([0] * 1500, nested_list(50), nested_list(3000)),
            *(ScorerConfig(), ThresholdConfig, OODConfig(), OmegaConf.create({"k": "${no}"})),
            *(torch.tensor(3), torch.zeros(2), OmegaConf.create([1, "${no}"])),
        ]
    )


KEYS = ["", "k", "scorrer", "Name", "scorer.k", "n reference", 1, None, (1,), True, 10**5000]


def valid(rng: random.Random, *keys: str) -> dict[Any, Any]:
    """Return a block with valid values for ``keys``, and for those that have to go with them."""
    chosen = {key: rng.choice(VALID[key]) for key in keys}
    needed = chosen.setdefault("scorer.min_samples", 2)
    if chosen.get("scorer.k"):
        needed = chosen["scorer.min_samples"] = 8
    if int(chosen.get("scorer.n_reference", 64)) < int(needed):
        chosen["scorer.n_reference"] = 64
    if chosen.get("threshold.upper_percentile"):
        chosen.update({"threshold.percentile": 0.5, "threshold.n": 1000})
    if chosen.get("threshold.n") and "threshold.percentile" in chosen:
        chosen["threshold.n"] = 1000  # of which any percentile flags one
    if chosen.get("scorer.name") == "exemplar" or "scorer.exemplars" in chosen:
        chosen.setdefault("scorer.exemplars", rng.choice(VALID["scorer.exemplars"]))
        chosen.update({"scorer.name": "exemplar", "scorer.feats": "eval"})
    block: dict[Any, Any] = {}
    for key, value in chosen.items():
        put(block, key, value)
    return block


def fuzzed(rng: random.Random) -> Any:
    """Return a block of valid values with none, one or two strange ones among them."""
    if rng.random() < 0.02:
        return nonsense(rng)
    block = valid(rng, *rng.sample(sorted(VALID), rng.randint(0, 8)))
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        where = rng.random()
        if where < 0.7:
            put(block, rng.choice(sorted(VALID)), nonsense(rng))
        elif where < 0.85:
            block[rng.choice(["scorer", "threshold", "queue", "mix"])] = nonsense(rng)
        else:
            section = rng.choice([block, *(v for v in block.values() if isinstance(v, dict))])
            section[rng.choice(KEYS)] = nonsense(rng)
    if rng.random() < 0.2:  # as Hydra gives it
        try:
            return OmegaConf.create(block)
        except Exception:  # what OmegaConf itself does not hold
            return block
    return block


def put(block: dict[Any, Any], key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    inner = block.setdefault(section, {}) if section else block
    if isinstance(inner, dict):
        inner[name] = value


def accepted(block: Any, batch_size: int) -> OODConfig | None:
    """Return the configuration, or ``None`` for a block that is refused as it should be."""
    try:
        cfg = parse(block, batch_size)
    except UserError as error:
        assert ONE_LINE.fullmatch(str(error)), str(error)
        assert len(str(error)) < 700, str(error)
        return None
    for value in leaves(cfg):
        assert type(value) in (int, float, str, bool, list, type(None))
        assert not isinstance(value, float) or math.isfinite(value)
    return cfg


def leaves(cfg: OODConfig) -> list[Any]:
    sections = (ScorerConfig, ThresholdConfig, QueueConfig, MixConfig)
    parts = [cfg, *(v for v in vars(cfg).values() if isinstance(v, sections))]
    return [v for part in parts for v in vars(part).values() if not isinstance(v, sections)]


def one_step(cfg: OODConfig, batch_size: int) -> RareSelector:
    """Let a selector score, judge, queue and replay, after a warm-up in large steps."""
    generator = torch.Generator().manual_seed(0)
    selector = RareSelector(cfg, D, CLASSES)
    if cfg.rare_classes is None:
        selector.set_rare_classes([0])

    def feats(n: int) -> torch.Tensor:
        return selector.embed([1 + torch.randn(n, D, generator=generator) for _ in range(2)])

    def targets(n: int) -> torch.Tensor:
        return torch.randint(-1, CLASSES, (n,), generator=generator)

    if isinstance(selector.scorer, ExemplarScorer):
        selector.scorer.set_exemplars(feats(5))
    n = cfg.scorer.min_samples
    selector.scorer.partial_fit(feats(n), targets(n))
    n = selector.threshold.n - 1
    items = torch.full((n, 2), -1)
    selector.threshold.judge(torch.rand(n, generator=generator), items)
    assert selector.scorer.ready
    m = replay_rows(cfg, batch_size)
    for step in range(4):
        rare = selector.queue.draw(m)
        fresh = batch_size - len(rare) if cfg.mix.mode == "replace" else batch_size
        indexes = torch.tensor([*range(step * 100, step * 100 + fresh), *rare])
        x, y = feats(len(indexes)), targets(len(indexes))
        if step == 2:
            x[0] = NAN
        selector.step(indexes, x, y, len(rare))
    selector.judge_pending()
    return selector


def check(cfg: OODConfig, batch_size: int) -> None:
    selector = one_step(cfg, batch_size)
    count, queue = selector.counts, selector.queue
    most = selector.threshold.n - 1 + 4 * batch_size - 1
    assert most >= count["judged"] >= count["flagged"] >= count["flagged_rare"]
    assert len(queue) <= cfg.queue.capacity
    assert all(isinstance(value, float) for value in selector.metrics().values())
    file = io.BytesIO()
    torch.save(selector.state_dict(), file)
    file.seek(0)
    loaded = RareSelector(cfg, D, CLASSES)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert list(loaded.queue) == list(queue) and loaded.counts == count


@pytest.mark.parametrize("part", range(12))
def test_every_block_works_for_a_step_or_is_one_clear_line(part):
    outcomes = {True: 0, False: 0}
    for number in range(100 * part, 100 * part + 100):
        rng = random.Random(number)  # so that the number is all it takes to see a failure again
        block, batch_size = fuzzed(rng), rng.choice([2, 8, 8, 16])
        try:
            cfg = accepted(block, batch_size)
            outcomes[cfg is not None] += 1
            if cfg is not None and cfg.enabled:
                check(cfg, batch_size)
        except Exception as error:
            raise AssertionError(f"block {number}: {error!r}") from error
    assert min(outcomes.values()) > 15  # neither is an exception


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_largest_sizes_allowed_work(scorer):
    block = valid(random.Random(0), "scorer.exemplars") if scorer == "exemplar" else {}
    sizes = ("scorer.n_reference", "threshold.n", "queue.capacity")
    for key, value in {"scorer.name": scorer, **dict.fromkeys(sizes, MOST_KEPT)}.items():
        put(block, key, value)
    check(parse(block, 8), 8)


EDGES = [-1, 0, 10**12, 2**63, 10**30, 10**400, -0.1, 1.5, 1e308, NAN, INF, -INF, "nan", "-inf"]
EDGES += [None, True, "", "x", "???", "${x}", [], [None], [[1]], {}, {"a": 1}, b"x", 1j, Foreign()]


@pytest.mark.parametrize("key", sorted(VALID))
def test_every_key_takes_what_is_valid_and_nothing_that_does_not_work(key):
    refused = 0
    for number, value in enumerate([*VALID[key], *EDGES]):
        block = valid(random.Random(number), "scorer.exemplars" if value == "exemplar" else key)
        if key == "seed":
            put(block, "scorer.name", "random-fresh")  # which has the narrowest range
        put(block, "mix.ratio", 1 / 16)  # 1 row, which any queue can hold
        put(block, key, value)
        cfg = accepted(block, 16)
        refused += cfg is None
        assert cfg is not None or number >= len(VALID[key]), block
        if cfg is not None and cfg.enabled:
            check(cfg, 16)
    assert refused > len(EDGES) / 3


VIT = ("backbone.name=vit_tiny", "+backbone.kwargs.patch_size=16", "+backbone.kwargs.img_size=32")
HOST = {  # no long warm-up, no workers to be started, exemplars that are in the data
    "start": 0.0,
    "scorer.n_reference": 64,
    "scorer.min_samples": 8,
    "threshold.n": 16,
    "threshold.percentile": 0.8,
    "threshold.upper_percentile": None,
    "mix.num_workers": 0,
}


@pytest.mark.parametrize("number", range(25))
def test_what_is_accepted_trains_in_the_host(number, compose, build, loader, trainer):
    rng = random.Random(number)
    keys = [key for key in sorted(VALID) if key not in HOST and key != "scorer.exemplars"]
    block = valid(rng, *rng.sample(keys, 8))
    for key, value in HOST.items():
        put(block, key, value)
    if block["scorer"].get("exemplars"):
        put(block, "scorer.exemplars", [0, 5, 9])
    put(block, "queue.capacity", max(8, block.get("queue", {}).get("capacity", 8)))
    backbone = () if number % 5 == 0 else VIT  # a ResNet takes several times as long
    cfg = compose("augmentations.1.num_crops=0", "augmentations.1.crop_size=32", *backbone)
    cfg.method_kwargs.ood = block
    model = build(cfg)
    trainer(fast_dev_run=4).fit(model, loader(cfg))
    if model.selector is not None:
        model.selector.judge_pending()
        assert model.selector.counts["judged"] > 0, block
