"""The block ``method_kwargs.ood``: defaults, nearest names, types and ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from solo_ood.settings.choices import THRESHOLDS
from solo_ood.settings.ratio import check_steps_are_known, highest_ratio, ratio_at
from solo_ood.settings.schema import MixConfig, OODConfig, parse, release_level, replay_rows

NAN, INF = float("nan"), float("inf")


def nested(key: str, value: Any) -> dict[str, Any]:
    """``nested("a.b", 1) == {"a": {"b": 1}}``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("block", [None, {}, OmegaConf.create({})])
def test_an_empty_block_means_all_defaults(block):
    assert parse(block, batch_size=256) == OODConfig()


def test_a_given_value_changes_nothing_else():
    expected = OODConfig()
    expected.scorer.name = "mahalanobis"
    assert parse({"scorer": {"name": "mahalanobis"}}) == expected


def test_a_dictconfig_is_resolved():
    cfg = OmegaConf.create({"epochs": 7, "ood": {"scorer": {"k": "${epochs}"}}})
    assert parse(cfg.ood).scorer.k == 7


@pytest.mark.parametrize("block", [False, 0, "", [], "knn", [1]])
def test_a_block_that_is_no_mapping_is_an_error(block):
    with pytest.raises(ValueError, match="expected a mapping, got"):
        parse(block)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("scorrer", "scorer"),
        ("scorer.n_refrence", "n_reference"),
        ("threshold.percentil", "percentile"),
        ("queue.capcity", "capacity"),
        ("mix.ration", "ratio"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_valid_one(key, near):
    path = ".".join(["method_kwargs.ood", *key.split(".")[:-1]])
    with pytest.raises(ValueError, match=rf"key in {path}: .*Did you mean '{near}'\?"):
        parse(nested(key, 1))


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("scorer.name", "mahalonobis", "mahalanobis"),
        ("scorer.feats", "evaluate", "eval"),
        ("threshold.name", "quotas", "quota"),
        ("queue.store", "index", "indexes"),
        ("mix.mode", "add-append", "append"),
    ],
)
def test_an_unknown_name_gives_the_nearest_valid_one(key, value, near):
    with pytest.raises(ValueError, match=rf"ood\.{key}: .*Did you mean '{near}'\?"):
        parse(nested(key, value))


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("start", [-0.1, 1.0, NAN, INF], [0.0, 0.99]),
        ("seed", [-1, 2**63], [0, 2**63 - 1]),
        ("scorer.n_reference", [1, 2**20 + 1], [256, 2**20]),
        ("scorer.min_samples", [1, 1025], [2, 1024]),
        ("scorer.k", [0, 257], [1, 256, None]),
        ("scorer.shrinkage", [-0.1, 1.1], [0.0, 1.0]),
        ("scorer.ridge", [0.0, -0.1, NAN, INF, 1e7], [1e-6, 10.0, 1e6]),
        ("scorer.exemplar_every", [0], [1]),
        ("threshold.percentile", [0.0, 1.0, 95.0, NAN], [0.01, 0.99]),
        ("threshold.upper_percentile", [0.95, 1.0, NAN], [0.96, 0.99, None]),
        ("threshold.n", [1, 2**20 + 1], [256, 2**20, None]),
        ("queue.capacity", [0, 2**20 + 1], [1, 2**20]),
        ("queue.max_replays", [0], [1, None]),
        ("queue.max_replays_per_run", [0], [1, None]),
        ("queue.max_replays_per_epoch", [0.0, -1.0, NAN, INF], [0.01, 2**20, None]),
        ("queue.min_age", [-1], [0]),
        ("queue.min_distance", [0.0, 2.1, NAN], [0.01, 2.0, None]),
        ("queue.release", [-0.1, 1.0], [0.0, 0.99, None]),
        ("mix.ratio", [-0.1, 1.0], [0.0, 0.99]),
        ("mix.ratio_end", [-0.1, 1.0, NAN], [0.0, 0.99, None]),
        ("mix.num_workers", [-1, 257], [0, 256, None]),
    ],
)
def test_values_out_of_range_are_named_and_the_ends_of_the_range_pass(key, bad, good):
    for value in bad:
        with pytest.raises(ValueError, match=rf"ood\.{key}: expected .*, got {value}\."):
            parse(nested(key, value))
    for value in good:
        section, _, name = key.rpartition(".")
        cfg = parse(nested(key, value))
        assert getattr(getattr(cfg, section) if section else cfg, name) == value


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("enabled", "maybe", "true or false, got 'maybe'"),
        ("enabled", None, "true or false, got None"),
        ("start", "late", "a number, got 'late'"),
        ("start", 10**400, "a number, got 1000.*0000[.]{3}"),
        ("start", [0.1], r"a number, got \[0.1\]"),
        ("start", {"a": 1}, "a number, got {'a': 1}"),
        ("seed", True, "a whole number or null, got True"),
        ("rare_classes", ["a"], r"a list of whole numbers or null, got \['a'\]"),
        ("scorer", 3, "a mapping, got 3. Write `scorer:` with its keys below it"),
        ("scorer", None, "a mapping, got None"),
        ("scorer.name", None, "a name, got None"),
        ("scorer.k", 1.5, "a whole number or null, got 1.5"),
        ("scorer.k", "???", "a value, got [?]{3}, which stands for a missing one"),
        ("scorer.k", "${x}", "a whole number or null, got '[$]{x}'"),
        ("scorer.exemplars", {"a": 1}, "a list or null, got {'a': 1}"),
        ("scorer.exemplars", "abc", "a list or null, got 'abc'"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_the_right_one(key, value, error):
    with pytest.raises(ValueError, match=rf"^method_kwargs\.ood\.{key}: expected {error}"):
        parse(nested(key, value))


def test_an_interpolation_that_leads_nowhere_is_named():
    with pytest.raises(ValueError, match=r"ood, key ood.scorer.k: .* 'epochs' not found\. Name"):
        parse(OmegaConf.create({"ood": {"scorer": {"k": "${epochs}"}}}).ood)


def test_an_int_too_long_to_be_printed_is_an_error_as_well():
    for value in (10**5000, -(10**5000)):  # no parameters: pytest would print them
        with pytest.raises(ValueError, match="seed: .* got a value of type int. Set"):
            parse({"seed": value})


def test_class_ids_below_0_would_count_unlabelled_samples_as_rare():
    with pytest.raises(ValueError, match=r"rare_classes: .* in \[0, 2\^63\), got \[-1, 2\]"):
        parse({"rare_classes": [-1, 2]})
    assert parse({"rare_classes": [0, 2]}).rare_classes == [0, 2]


EXEMPLAR = {"name": "exemplar", "feats": "eval", "exemplars": [12, "rider/a.jpg"]}


def test_exemplars_are_indexes_and_paths():
    assert parse({"scorer": EXEMPLAR}).scorer.exemplars == [12, "rider/a.jpg"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"exemplars": None}, "exemplars: expected at least 1 .*got None. Give 5 to 20"),
        ({"exemplars": []}, r"exemplars: expected at least 1 .*got \[\]"),
        ({"exemplars": [12, 1.5]}, r"exemplars: expected dataset indexes .*got \[12, 1.5\]"),
        ({"exemplars": [True]}, "exemplars: expected dataset indexes .* and image paths"),
        ({"exemplars": [None]}, "exemplars: expected dataset indexes .* and image paths"),
        ({"feats": "train"}, "feats: expected eval with .*got train. Set .*feats=eval"),
        ({"exemplars": list(range(1001))}, "exemplars: expected at most 1000 .*, got 1001"),
        ({"name": "knn"}, "exemplars: expected null with ood.scorer.name=knn"),
    ],
)
def test_the_exemplar_scorer_needs_exemplars_and_eval_features(change, error):
    with pytest.raises(ValueError, match=rf"^ood\.scorer\.{error}"):
        parse({"scorer": {**EXEMPLAR, **change}})


def test_replayed_rows_are_the_rounded_share_of_the_batch():
    assert replay_rows(parse({"mix": {"ratio": 0.3}}), 32) == 10


def test_a_batch_of_no_rows_is_an_error():
    with pytest.raises(ValueError, match="batch size: expected at least 1 .* got 0"):
        parse({}, batch_size=0)


def test_a_ratio_of_less_than_one_row_is_an_error_that_gives_the_smallest_one():
    with pytest.raises(ValueError, match=r"got 0.1 \(0 rows\). Use at least 0.250"):
        parse({"mix": {"ratio": 0.1}}, batch_size=4)


@settings(max_examples=60, deadline=None)
@given(first=st.floats(0, 0.99), last=st.floats(0, 0.99), n=st.integers(1, 50))
def test_the_ratio_goes_in_a_line_from_its_first_to_its_last_value(first, last, n):
    mix = MixConfig(ratio=first, ratio_end=last)
    ratios = [ratio_at(mix, step / n) for step in range(-1, n + 2)]
    expected = np.interp(np.arange(-1, n + 2) / n, [0, 1], [first, last])
    assert np.allclose(ratios, expected, rtol=0, atol=1e-12)
    assert highest_ratio(mix) == max(first, last) >= max(ratios) - 1e-12
    assert ratio_at(MixConfig(ratio=first), 0.5) == first == highest_ratio(MixConfig(ratio=first))


@pytest.mark.parametrize("total", [NAN, INF, -1])
def test_a_way_of_unknown_length_is_an_error(total):
    with pytest.raises(ValueError, match="ratio_end: expected null for a run .*, got 0.1"):
        check_steps_are_known(MixConfig(ratio_end=0.1), total)
    check_steps_are_known(MixConfig(), total)
    check_steps_are_known(MixConfig(ratio_end=0.1), 9)


def test_rows_and_release_level_are_those_of_the_larger_end():
    rising = parse({"mix": {"ratio": 0.1, "ratio_end": 0.5}})
    assert replay_rows(rising, 32) == 16
    assert release_level(rising) == release_level(parse({"mix": {"ratio": 0.5}}))
    with pytest.raises(ValueError, match="at least 1 fresh row"):
        parse({"mix": {"ratio": 0, "ratio_end": 0.9}}, batch_size=2)


def test_ratio_0_replays_nothing_and_is_no_error():
    assert replay_rows(parse({"mix": {"ratio": 0}}), 4) == 0


def test_replace_must_leave_a_fresh_row_and_append_need_not():
    with pytest.raises(ValueError, match="at least 1 fresh row"):
        parse({"mix": {"ratio": 0.9}}, batch_size=2)
    parse({"mix": {"ratio": 0.9, "mode": "append"}}, batch_size=2)


def test_the_queue_must_hold_one_step_of_all_processes():
    cfg = parse({"queue": {"capacity": 15}, "mix": {"ratio": 0.5}}, batch_size=16)
    with pytest.raises(ValueError, match="at least the 16 rows replayed per step, got 15"):
        replay_rows(cfg, 16, world_size=2)


def test_a_disabled_block_is_not_checked_against_the_batch_size():
    assert not parse({"enabled": False, "mix": {"ratio": 0.1}}, batch_size=2).enabled


@pytest.mark.parametrize(("mode", "fresh"), [("replace", 0.75), ("append", 1.0)])
def test_the_default_release_level_replays_each_sample_as_often_as_the_ratio_asks(mode, fresh):
    cfg = parse({"mix": {"mode": mode, "ratio": 0.25}, "threshold": {"percentile": 0.95}})
    mean_replays = 1 / release_level(cfg)  # of a sample that survives with chance 1 - level
    assert 0.05 * fresh * mean_replays == pytest.approx(0.25)


def test_the_default_release_level_never_exceeds_the_percentile():
    assert release_level(parse({"mix": {"ratio": 0.01}})) == 0.95
    assert release_level(parse({"mix": {"ratio": 0.0}})) == 0.95
    assert release_level(parse({"queue": {"release": 0.3}})) == 0.3


def test_of_a_band_the_release_level_sustains_the_smaller_flag_rate():
    band = {"percentile": 0.75, "upper_percentile": 0.85}
    cfg = parse({"mix": {"ratio": 0.5}, "threshold": band})
    assert release_level(cfg) == pytest.approx((0.85 - 0.75) * 0.5 / 0.5)


@pytest.mark.parametrize(
    ("block", "match"),
    [
        ({"n": 90}, "upper_percentile: expected an end above which a block of 90 samples has"),
        ({"percentile": 0.98991}, r"100 / \(upper_percentile - percentile\) of at most"),
        ({"percentile": 0.98, "n": 99}, "at least 100 samples"),
    ],
)
def test_a_band_without_a_sample_in_it_or_above_it_is_refused(block, match):
    with pytest.raises(ValueError, match=match):
        parse({"threshold": {"percentile": 0.75, "upper_percentile": 0.99, **block}})
    parse({"threshold": {"percentile": 0.75, "upper_percentile": 0.99, "n": 100}})


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize(
    ("percentile", "n", "match"),
    [
        (0.9999, 1024, r"ood\.threshold\.n: expected at least 10000 samples.*got 1024"),
        (0.95, 19, r"at least 20 samples, of which percentile=0\.95 flags one, got 19"),
        (0.99999, None, r"ood\.threshold\.percentile: .*got 0\.99999 \(1e\+07 samples\)"),
    ],
)
def test_a_block_that_cannot_flag_one_sample_is_refused(name, percentile, n, match):
    with pytest.raises(ValueError, match=match):
        parse({"threshold": {"name": name, "percentile": percentile, "n": n}})
