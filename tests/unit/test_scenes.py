"""Near-duplicates stand behind one image, and all images are somewhere."""

from __future__ import annotations

import numpy as np
import pytest

from solo_ood.mining.scenes import NONE, choose, usual_distance


def cloud(n: int, dim: int = 16, seed: int = 0, copies: int = 1, spread: float = 0.01):
    """Return unit vectors (n * copies, dim): ``copies`` near each of n directions."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(n, dim)), copies, axis=0)
    rows = centres + spread * rng.normal(size=centres.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def naive(scores, unit, clips, top, near, per_clip=None, known=()):
    """The definition, image by image."""
    chosen, behind = [], {}
    for row in np.argsort(-scores, kind="stable"):
        others = [*known, *chosen]
        best = max(others, key=lambda other: unit[row] @ unit[other], default=None)
        if row in known:
            behind[row] = row
        elif best is not None and 1 - unit[row] @ unit[best] <= near:
            behind[row] = best
        elif per_clip and clips[row] and sum(clips[c] == clips[row] for c in chosen) >= per_clip:
            behind[row] = NONE  # of that clip, see below
        elif len(chosen) < top:
            chosen.append(row)
            behind[row] = row
        else:
            behind[row] = NONE
    return chosen, behind


@pytest.mark.parametrize("top", [1, 7, 40, 1000])
@pytest.mark.parametrize("known", [(), (3, 100)])
def test_the_scenes_are_those_of_the_definition(top, known):
    unit, scores = cloud(120, copies=5), np.random.default_rng(1).random(600)
    clips = [""] * 600
    found = choose(scores, unit, clips, top, 0.01, known=known)
    chosen, _ = naive(scores, unit, clips, top, 0.01, known=known)
    assert found.chosen.tolist() == chosen and len(chosen) == min(top, 120 - len(known))
    for row, leader in enumerate(found.behind):
        if leader != NONE:
            assert leader in (*chosen, *known) and 1 - unit[row] @ unit[leader] < 0.01
        else:
            assert all(1 - unit[row] @ unit[other] > 0.01 for other in (*chosen, *known))
    assert sum(found.like(row) + 1 for row in (*chosen, *known)) == (found.behind != NONE).sum()


def test_each_of_five_copies_stands_behind_the_one_with_the_highest_score():
    unit, scores = cloud(20, copies=5), np.random.default_rng(1).random(100)
    found = choose(scores, unit, [""] * 100, 100, 0.01)
    assert sorted(found.chosen) == sorted(
        5 * n + scores[5 * n : 5 * n + 5].argmax() for n in range(20)
    )
    assert [found.like(row) for row in found.chosen] == [4] * 20


@pytest.mark.parametrize("diverse", [False, True])
def test_a_clip_has_so_many_scenes_and_the_others_stand_behind_the_nearest_of_these(diverse):
    unit, scores = cloud(60), np.random.default_rng(1).random(60)
    clips = ["a"] * 30 + ["b"] * 20 + [""] * 10
    found = choose(scores, unit, clips, 100, 0.0, per_clip=3, diverse=diverse)
    of_clip = [clips[row] for row in found.chosen]
    assert (of_clip.count("a"), of_clip.count("b"), of_clip.count("")) == (3, 3, 10)
    for row, leader in enumerate(found.behind):
        assert clips[leader] == clips[row]
        same = [other for other in found.chosen if clips[other] == clips[row]]
        if clips[row]:
            assert unit[row] @ unit[leader] == max(unit[row] @ unit[other] for other in same)


def test_without_a_distance_every_image_is_a_scene():
    unit = np.repeat(cloud(1), 9, axis=0)
    found = choose(np.arange(9.0), unit, [""] * 9, 5, 0.0)
    assert found.chosen.tolist() == [8, 7, 6, 5, 4]
    assert (found.behind == NONE).sum() == 4


def test_a_diverse_choice_is_farther_apart_and_begins_with_the_highest_score():
    unit, scores = cloud(400, dim=4), np.random.default_rng(1).random(400)
    apart = {}
    for diverse in (False, True):
        chosen = choose(scores, unit, [""] * 400, 12, 0.001, diverse=diverse).chosen
        assert scores.argmax() in chosen and len(chosen) == 12
        assert (np.diff(scores[chosen]) <= 0).all()
        similarity = unit[chosen] @ unit[chosen].T - 2 * np.eye(12)
        apart[diverse] = 1 - similarity.max()
        assert set(chosen) <= set(np.argsort(-scores)[:120])
    assert apart[True] > 2 * apart[False]


def test_what_has_no_score_is_no_scene():
    scores = np.array([0.1, np.nan, 0.3])
    found = choose(scores, cloud(3), [""] * 3, 5, 0.0)
    assert found.chosen.tolist() == [2, 0] and found.behind.tolist() == [0, NONE, 2]


def test_the_usual_distance_is_a_quarter_of_the_median_of_pairs():
    unit = cloud(300)
    pairs = 1 - unit @ unit.T
    expected = np.median(pairs[~np.eye(300, dtype=bool)]) / 4
    assert usual_distance(unit) == pytest.approx(expected, rel=0.05)
    assert usual_distance(unit[:1]) == 0
