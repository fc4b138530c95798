"""An audit: who is drawn, what is written, and what is refused of a sheet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from solo_ood.data.frames import Frames
from solo_ood.errors import UserError
from solo_ood.mining.audit import check_sheet, draw, read_audit, write_sheet
from solo_ood.mining.ranking import Entry, Ranking

FRAMES = Frames(
    Path("/data"), tuple(Path(f"/data/{n}.png") for n in range(100)), ("",) * 100, "list"
)


def ranking(listed: int = 20, like: int = 10) -> Ranking:
    states = ["chosen"] * listed + ["like"] * like + ["further"] * (100 - listed - like)
    ranks = iter(range(1, 101))
    return Ranking(
        tuple(
            Entry(state, path, "", 0, None if state == "like" else next(ranks), 1.0)
            for state, path in zip(states, FRAMES.paths)
        )
    )


def row_of(name: str, what: str) -> int:
    if not (name.endswith(".png") and name[:-4].isdigit()):
        raise UserError(what, expected="an image of the data", got=name, remedy="Check it.")
    return int(name[:-4])


@pytest.fixture
def sheet(tmp_path) -> Path:
    drawn = draw(ranking(), 40, seed=0)
    write_sheet(drawn, ranking(), FRAMES, tmp_path)
    return tmp_path / "audit.csv"


def fill(sheet: Path, word=lambda row: "yes" if row < 10 or row == 99 else "no") -> list[str]:
    _, *lines = sheet.read_text().splitlines()
    rows = [
        f"{line.partition(',')[0]},{word(row_of(line.partition(',')[0], ''))}" for line in lines
    ]
    sheet.write_text("\n".join(["path,rare", *rows]))
    return lines


def test_half_is_of_the_list_and_near_duplicates_of_it_are_not_audited():
    drawn = draw(ranking(), 20, seed=0)
    states = [entry.state for entry in drawn.entries]
    assert (states.count("chosen"), states.count("further")) == (10, 10)
    assert len({entry.path for entry in drawn.entries}) == 20
    assert states != sorted(states) and (drawn.listed, drawn.others) == (20, 70)
    assert {e.path for e in draw(ranking(), 20, 1).entries} != {e.path for e in drawn.entries}


@pytest.mark.parametrize(
    ("count", "on_list", "beside"), [(60, 20, 40), (85, 20, 65), (500, 20, 70)]
)
def test_where_a_part_is_small_the_other_has_the_rest(count, on_list, beside):
    states = [entry.state for entry in draw(ranking(), count, 0).entries]
    assert (states.count("chosen"), states.count("further")) == (on_list, beside)
    small = draw(ranking(listed=90, like=5), 60, 0)
    assert len(small.entries) == 60


def test_a_sheet_says_nothing_of_ranks_and_is_not_written_over(sheet):
    assert sheet.read_text().splitlines()[0] == "path,rare"
    check_sheet(sheet.parent)
    fill(sheet)
    with pytest.raises(UserError, match="--audit: expected no filled sheet at .*got one with ans"):
        check_sheet(sheet.parent)


def test_a_filled_sheet_gives_the_estimates_beside_random_picks(sheet, tmp_path):
    fill(sheet)
    lines = read_audit(sheet, tmp_path, ranking(), FRAMES, row_of)
    assert lines[0].startswith("audit of 40 of 90 images, 20 of them listed")
    assert "precision of the 20 listed: 0.500 [0.500, 0.500]; of random picks" in lines[1]
    assert "precision of the first 10: 1.000" in lines[2]
    assert lines[-1].endswith("by as many random picks: 0.222")
    other = read_audit(sheet, tmp_path, ranking(listed=19), FRAMES, row_of)
    assert "an earlier list" in other[-1]


def test_the_design_may_lie_in_the_output_folder(sheet, tmp_path):
    fill(sheet)
    moved = tmp_path / "elsewhere" / "mine.csv"
    moved.parent.mkdir()
    sheet.rename(moved)
    assert read_audit(moved, tmp_path, ranking(), FRAMES, row_of)
    with pytest.raises(UserError, match="--audited: expected audit.json"):
        read_audit(moved, tmp_path / "none", ranking(), FRAMES, row_of)
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(UserError, match="expected the design that --audit wrote"):
        read_audit(moved, tmp_path, ranking(), FRAMES, row_of)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(",yes", ",maybe", 1), r"line \d+: expected yes or no .*'maybe'"),
        (lambda text: text.replace(",no", ",", 1), "got 1 without an answer, such as"),
        (lambda text: text + "\nother.jpg,yes", "expected an image of the data, got other.jpg"),
        (lambda text: text + "\n25.png,yes", "got 25.png, which was not drawn"),
        (lambda text: text.replace("path,rare", "path,answer"), "the columns path and rare"),
        (lambda text: text.replace("path,rare", "name,rare"), "a header with the columns path"),
        (lambda text: text + "\n" + text.splitlines()[1].split(",")[0] + ",YES"
         + "\n" + text.splitlines()[1].split(",")[0] + ",No", "one answer for each image"),
    ],
)  # fmt: skip
def test_another_sheet_is_one_clear_error(sheet, tmp_path, change, said):
    fill(sheet)
    sheet.write_text(change(sheet.read_text()))
    with pytest.raises(UserError, match=said):
        read_audit(sheet, tmp_path, ranking(), FRAMES, row_of)


def test_the_design_holds_the_rank_of_each_image(sheet):
    design = json.loads((sheet.parent / "audit.json").read_text())
    assert len(design["ranks"]) == 40 and {design["listed"], design["others"]} == {20, 70}
