"""Answers refit a ranking: yes is an exemplar more, no counts against; and the next questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from solo_ood.data.images import Split
from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.feats import Feats, PatchView, feats_of
from solo_ood.embedding.extract import Embedded
from solo_ood.errors import UserError
from solo_ood.mining.feedback import Lesson, lesson_of, questions, with_regions
from solo_ood.mining.sheets import Answers, is_filled, read_answers

SIDE = 4  # patches along an edge, of 16 pixels each


def row_of(name: str, what: str) -> int:
    return int(Path(name).stem)


@pytest.fixture
def pictures(tmp_path) -> tuple[Path, ...]:
    paths = tuple(tmp_path / f"{n}.png" for n in range(6))
    for path in paths:
        Image.new("RGB", (64, 64)).save(path)
    return paths


def sheet(folder: Path, text: str, name: str = "sheet.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def embedded(pictures, kinds) -> Embedded:
    """Patches are of kind 0, but for the first one of each image, which is of the given kind."""
    patches = np.zeros((len(pictures), SIDE, SIDE, 3), dtype=np.float16)
    patches[..., 0] = 1
    for row, kind in enumerate(kinds):
        patches[row, 0, 0] = np.eye(3)[kind]
    split = Split(pictures, np.zeros((len(pictures), 0), dtype=np.float32), ())
    pooled = patches.mean(axis=(1, 2)).astype(np.float32)
    return Embedded(split, pooled, patches, np.arange(len(pictures)), (64, 64))


def exemplar(kind: int) -> Feats:
    patches = np.zeros((1, SIDE, SIDE, 3), dtype=np.float16)
    patches[..., 0] = 1
    patches[0, 0, 0] = np.eye(3)[kind]
    regions = np.tile(np.array([0, 1], dtype=np.float32), (1, SIDE * SIDE, 1))
    regions[0, 0] = (1, 0)
    return Feats(patches.mean(axis=(1, 2)).astype(np.float32), PatchView(patches), regions)


def test_sheets_of_yes_and_no_are_read_together_and_empty_lines_are_left_out(tmp_path, pictures):
    first = sheet(tmp_path, "path,rare\n0.png,yes\n1.png,No\n2.png,\n")
    second = sheet(tmp_path, "path,rare,left,top,right,bottom\n3.png,Y,0,0,16,16\n3.png,y,1,1,5,5\n"
                   "4.png,n,,,,\n0.png,yes,,,,\n", "second.csv")  # fmt: skip
    answers = read_answers([first, second], pictures, row_of)
    assert answers.rare == {0: True, 1: False, 3: True, 4: False}
    assert (answers.yes, answers.no) == ([0, 3], [1, 4])
    assert answers.boxes == {3: [(0, 0, 16, 16), (1, 1, 5, 5)]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,rare\n0.png,yes\n0.png,no\n", "sheet.csv, line 3: expected one answer"),
        ("path,rare\n0.png,perhaps\n", "line 2: expected yes or no .*got 'perhaps'"),
        ("path\n0.png\n", "expected the columns path and rare"),
        ("path,rare,left,top,right,bottom\n0.png,yes,0,0,99,9\n", "right <= 64"),
        ("path,rare,left,top,right,bottom\n0.png,yes,0,0,,9\n", "right <= 64"),
    ],
)
def test_a_slip_in_a_sheet_names_its_line(tmp_path, pictures, text, said):
    with pytest.raises(UserError, match=said):
        read_answers([sheet(tmp_path, text)], pictures, row_of)


def test_a_sheet_is_filled_if_anybody_has_written_into_it(tmp_path):
    assert not is_filled(tmp_path / "none.csv")
    assert not is_filled(sheet(tmp_path, "path,rare\n0.png,\n"))
    assert is_filled(sheet(tmp_path, "path,rare\n0.png,no\n"))
    assert is_filled(sheet(tmp_path, "a diary"))


def test_answers_on_images_that_could_not_be_embedded_are_left_out(pictures):
    answers = Answers({0: True, 1: False, 5: True}, {5: [(0.0, 0.0, 9.0, 9.0)]})
    lesson = lesson_of(answers, pictures, pictures[1:])
    assert (lesson.yes, lesson.no) == ([4], [0]) and list(lesson.boxes) == [pictures[5]]


def scores(found: Embedded, lesson: Lesson, known: Feats | None) -> np.ndarray:
    exemplars = with_regions(lesson, found, known)
    return DETECTORS["exemplar-regions"].fit(feats_of(found), 0)(feats_of(found), exemplars)


def test_a_box_teaches_what_no_exemplar_showed(pictures):
    found = embedded(pictures, [0, 0, 1, 1, 2, 2])
    before = scores(found, Lesson([], [], {}), exemplar(1))
    assert set(np.argsort(-before)[:2]) == {2, 3}
    boxed = Lesson([4], [], {pictures[4]: [(0.0, 0.0, 16.0, 16.0)]})
    after = scores(found, boxed, exemplar(1))
    assert set(np.argsort(-after)[:4]) == {2, 3, 4, 5}
    alone = scores(found, boxed, None)
    assert set(np.argsort(-alone)[:2]) == {4, 5}


def test_a_yes_without_a_box_means_the_region_that_was_shown(pictures):
    found = embedded(pictures, [0, 0, 1, 1, 2, 2])
    taught = with_regions(Lesson([2], [], {}), found, exemplar(1))
    assert taught.regions.shape == (2, SIDE * SIDE, 2) and len(taught.patches) == 2
    assert taught.regions[1, 0].tolist() == [1, 0]  # the first patch
    assert taught.regions[1, -1].tolist() == [0, 1]


def test_a_no_counts_against_all_that_is_like_it(pictures):
    found = embedded(pictures, [0, 0, 1, 1, 2, 2])
    both = exemplar(1)
    both.patches.array[0, 0, 1] = (0, 0, 1)
    both.regions[0, 1] = (1, 0)  # it shows kinds 1 and 2
    before = scores(found, Lesson([], [], {}), both)
    after = scores(found, Lesson([], [4], {}), both)
    # Above an image with nothing: kind 2 falls behind kind 1, which it was equal to.
    assert before[5] - before[0] == pytest.approx(before[3] - before[0], rel=0.05)
    assert after[5] - after[0] < 0.9 * (after[3] - after[0])


def test_questions_are_of_the_images_in_the_middle_between_yes_and_no():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(200, 8)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    values = np.linspace(0, 1, 200)
    asked = questions(values, unit, Lesson([199, 198], [0, 1], {}), 0.9, 0.0)
    assert len(asked) == 20 and np.abs(values[asked] - 0.5).max() < 0.06
    one_sided = questions(values, unit, Lesson([199], [], {}), 0.8, 0.0)
    assert np.abs(values[one_sided] - 0.8).max() < 0.06
    assert not {199, 0} & {*asked, *one_sided}
