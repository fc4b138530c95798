"""No image vouches for itself, nor for its neighbours; detectors see a bounded number of images."""

from __future__ import annotations

import numpy as np
import pytest

from solo_ood.detection.detectors import DETECTORS, Detector
from solo_ood.detection.feats import Feats
from solo_ood.errors import UserError
from solo_ood.mining.cross_fit import cross_fitted, groups_of, position_in_clip


class Spy:
    """Remembers who was learnt when who was scored; the first feature is the number."""

    def __init__(self) -> None:
        self.pairs: list[tuple[set[int], set[int]]] = []

    def fit(self, feats: Feats, seed: int):
        learnt = set(feats.pooled[:, 0].astype(int).tolist())

        def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
            asked = test.pooled[:, 0].astype(int)
            self.pairs.append((learnt, set(asked.tolist())))
            return asked.astype(float)

        return score


def feats(n: int) -> Feats:
    return Feats(np.arange(n, dtype=np.float32)[:, None])


@pytest.mark.parametrize(
    ("clips", "block"),
    [
        ([""] * 40, None),
        ([""] * 40, 8),
        (["a"] * 10 + ["b"] * 20 + ["c"] * 10, None),
        (["a"] * 10 + ["b"] * 20 + [""] * 10, None),
        (["a", "b"] * 20, 4),
        (["a"] * 40, None),
    ],
)
def test_every_image_is_scored_once_by_a_detector_that_has_seen_none_of_its_scene(clips, block):
    spy, groups = Spy(), groups_of(clips, block)
    scores = cross_fitted(Detector("spy", spy.fit), feats(40), groups)
    assert scores.tolist() == list(range(40))
    assert sorted(n for _, asked in spy.pairs for n in asked) == list(range(40))
    for learnt, asked in spy.pairs:
        assert not {groups[n] for n in learnt} & {groups[n] for n in asked}


def test_scenes_are_clips_or_blocks_of_neighbours_within_them():
    clips = ["a", "b", "a", "b", "a", "", ""]
    by_clip, by_block = groups_of(clips, None), groups_of(clips, 2)
    assert len(set(by_clip)) == 4 and by_clip[0] == by_clip[2] == by_clip[4]
    assert by_block[0] == by_block[2] != by_block[4] and by_block[1] == by_block[3]
    assert by_block[5] == by_block[6]
    assert position_in_clip(clips).tolist() == [0, 0, 1, 1, 2, 0, 1]


def test_of_many_images_a_detector_learns_from_so_many():
    spy = Spy()
    cross_fitted(Detector("spy", spy.fit), feats(500), np.arange(500), most=50)
    assert [len(learnt) for learnt, _ in spy.pairs] == [50] * 5


def test_a_copy_in_another_clip_makes_an_image_common_but_one_in_its_own_does_not():
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(200, 32)).astype(np.float32)
    pooled[1:4], pooled[101:104] = pooled[0], pooled[100]  # four alike of one clip, and of four
    clips = [f"{n // 10}" for n in range(200)]
    clips[100:104] = ["0", "3", "5", "7"]
    scores = cross_fitted(DETECTORS["knn"], Feats(pooled), groups_of(clips, None))
    assert scores[:4].min() > np.median(scores) / 2 > scores[100:104].max()
    alone = cross_fitted(DETECTORS["knn"], Feats(pooled), groups_of(clips, 1))
    assert alone[:4].max() < np.median(scores) / 2


@pytest.mark.parametrize(("n", "clips"), [(3, [""] * 3), (9, ["a"] * 9)])
def test_too_few_images_or_scenes_are_one_clear_error(n, clips):
    with pytest.raises(UserError, match="expected at least 4 images, of 2 scenes"):
        cross_fitted(DETECTORS["knn"], feats(n), groups_of(clips, 9))
