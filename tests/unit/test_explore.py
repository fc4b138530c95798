"""What is answered in ``solo-ood explore``: kept in the sheets of ``rank``, undone, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from explored import RED, listed, write_pictures

from solo_ood.cli import main
from solo_ood.data.frames import read_frames
from solo_ood.detection.boxes import read_boxes
from solo_ood.errors import UserError
from solo_ood.explore.listing import Filter
from solo_ood.explore.session import Session
from solo_ood.files import atomic
from solo_ood.mining.exemplars import Lookup
from solo_ood.mining.recall import read_facts, recalled
from solo_ood.mining.sheets import read_answers

TURNED = "b/005.png"  # of 48 x 64 pixels in the file, 64 x 48 as it is shown


@pytest.fixture
def data(tmp_path) -> Path:
    return write_pictures(tmp_path / "data", 20)


@pytest.fixture
def out(data, tmp_path) -> Path:
    return listed(data, tmp_path / "out", boxes=True)


def opened(out: Path) -> Session:
    return Session(out, print)


def number(session: Session, name: str) -> int:
    return session.names.index(name)


def test_answers_are_read_back_by_the_readers_of_rank(out, data):
    session = opened(out)
    second = (1, 2, 30.5, 40)
    session.answer(number(session, TURNED), False, True, [RED, second])
    session.answer(number(session, "a/002.png"), False, False)
    session.answer(number(session, "a/000.png"), False, True)
    frames = read_frames(data)
    lookup = Lookup(frames)
    answers = read_answers([out / "explored-answers.csv"], frames.paths, lookup.row_named)
    named = {frames.name(frames.paths[row]): rare for row, rare in answers.rare.items()}
    assert named == {TURNED: True, "a/002.png": False, "a/000.png": True}
    (boxes,) = answers.boxes.values()
    assert boxes == [RED, second]
    marked = read_boxes(out / "explored-boxes.csv", lookup.path)
    assert marked == {data / TURNED: [RED, second]}


def test_boxes_are_of_the_picture_as_it_is_shown(out):
    session = opened(out)
    turned = number(session, TURNED)
    assert session.item(turned, False)["size"] == (64, 48)
    session.answer(turned, False, True, [(0, 0, 64, 48)])
    with pytest.raises(UserError, match="right <= 64 and 0 <= top < bottom <= 48"):
        session.answer(turned, False, True, [(0, 0, 48, 64)])
    assert session.answers.get(TURNED).boxes == ((0, 0, 64, 48),)


def test_answers_are_kept_across_restarts(out):
    session = opened(out)
    session.answer(number(session, TURNED), False, True, [RED])
    session.answer(number(session, "a/002.png"), False, False)
    again = opened(out)
    assert again.answers.counts() == {"yes": 1, "no": 1, "boxes": 1}
    listing = again.listed("answered", Filter(), 0, 10)
    assert [item["name"] for item in listing["items"]] == ["a/002.png", TURNED]
    assert listing["items"][1]["boxes"] == (RED,) and again.undo() is None


def test_undo_brings_back_what_was_before_step_by_step_also_on_the_disk(out):
    session = opened(out)
    one = number(session, TURNED)
    session.answer(one, False, True, [RED])
    session.answer(one, False, False)
    session.answer(number(session, session.audit.names[0]), True, True)
    session.answer(one, False, False)  # nothing new
    assert "yes" in (out / "audit.csv").read_text()
    assert session.undo().audit and "yes" not in (out / "audit.csv").read_text()
    assert not (out / "explored-boxes.csv").exists()
    assert session.undo().number == one and session.answers.get(TURNED).boxes == (RED,)
    assert (out / "explored-boxes.csv").exists()
    session.undo()
    assert not (out / "explored-answers.csv").exists()  # one without lines would be an error
    assert not (out / "explored-boxes.csv").exists() and session.undo() is None


def test_an_answer_that_cannot_be_saved_is_not_given(out, monkeypatch):
    session = opened(out)
    one = number(session, TURNED)
    session.answer(one, False, False)
    kept = (out / "explored-answers.csv").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        session.answer(one, False, True, [RED])
    monkeypatch.undo()
    assert session.answers.get(TURNED).rare is False
    assert (out / "explored-answers.csv").read_bytes() == kept
    assert [path.name for path in out.iterdir() if "partial" in path.name] == []
    session.undo()
    assert session.answers.names == []


def test_a_sheet_that_another_program_wrote_meanwhile_is_not_written_over(out):
    session = opened(out)
    (out / "explored-answers.csv").write_text("path,rare\na/000.png,yes\n")
    with pytest.raises(UserError, match="another program has written.*Call solo-ood explore again"):
        session.answer(number(session, TURNED), False, True)
    assert opened(out).answers.names == ["a/000.png"]


def test_the_audit_sheet_keeps_its_lines_and_hides_the_place_in_the_list(out):
    before = (out / "audit.csv").read_text().splitlines()
    session = opened(out)
    shown = session.listed("audit", Filter(low=0.9, clip="a"), 0, 100)
    names = [item["name"] for item in shown["items"]]
    assert [f"{name}," for name in names] == before[1:]
    assert not {"rank", "score", "percentile", "state", "box"} & set(shown["items"][0])
    session.answer(number(session, names[2]), True, False)
    after = (out / "audit.csv").read_text().splitlines()
    assert after == [*before[:3], f"{names[2]},no", *before[4:]]
    assert opened(out).audit.counts() == {"answered": 1, "drawn": 8}
    other = next(name for name in session.names if name not in names)
    for wrong in (other, names[0]):
        with pytest.raises(UserError, match="a picture of the audit sheet"):
            session.answer(number(session, wrong), True, True, [RED] * (wrong == names[0]))


def test_the_list_is_filtered_by_clip_score_and_path_and_comes_in_parts(out):
    session = opened(out)
    everything = session.listed("all", Filter(), 0, 1000)
    assert (everything["of"], everything["total"], len(everything["items"])) == (20, 20, 20)
    assert [item["rank"] for item in everything["items"]] == list(range(1, 21))
    assert everything["items"][0]["box"] == RED
    part = session.listed("all", Filter(), 15, 10)
    assert part["items"] == everything["items"][15:]
    assert {item["clip"] for item in session.listed("all", Filter("b"), 0, 99)["items"]} == {"b"}
    high = session.listed("all", Filter(low=0.5, high=0.9), 0, 99)["items"]
    assert high and all(0.5 <= item["score"] <= 0.9 for item in high)
    found = session.listed("all", Filter(words="A/ 00"), 0, 99)["items"]
    assert [item["name"] for item in found] == [f"a/00{n}.png" for n in (0, 2, 4, 6, 8)]
    assert [view[2] for view in session.state()["views"]] == [6, 20, 8]


def test_a_data_folder_that_is_gone_leaves_list_and_answers(out, data):
    session = opened(out)
    session.answer(number(session, TURNED), False, True, [RED])
    data.rename(data.parent / "moved")
    again = opened(out)
    assert "none of the 20 pictures is where it was" in again.notes[0]
    assert again.answers.get(TURNED).boxes == (RED,)
    again.answer(0, False, False)
    assert len(opened(out).answers.names) == 2


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("ranking.json", None, "no ranking.json.*Make one by solo-ood rank FRAMES"),
        ("ranking.json", "{", "which is no JSON"),
        ("ranking.json", '{"command": "solo-ood rank X"}', "Make it again: solo-ood rank X"),
        ("ranking.csv", None, "with ranking.csv .*got no ranking.csv"),
        ("ranking.csv", "path,rank\na,1\n", "ranking.csv of another form"),
        ("ranking.csv", "", "ranking.csv without rows"),
        ("explored-answers.csv", "path,rare\nx.png,yes\n", "a picture of this ranking"),
        ("explored-answers.csv", "path,rare\na/000.png,perhaps\n", "yes or no in the column rare"),
    ],
)
def test_a_folder_that_is_no_ranking_is_said_with_what_is_missing(out, file, content, match):
    (out / file).unlink(missing_ok=True)
    if content is not None:
        (out / file).write_text(content)
    with pytest.raises(SystemExit, match=match):
        main(["explore", str(out)])


def test_a_folder_that_cannot_be_written_is_said_before(out):
    (out / "explored-boxes.csv").mkdir()
    with pytest.raises(SystemExit, match="OUT: expected files that can be written over"):
        main(["explore", str(out)])


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SystemExit, match="got no folder .*none. Make one by solo-ood rank"):
        main(["explore", str(tmp_path / "none")])


def test_a_ranking_knows_how_it_was_asked_for(data, tmp_path):
    more = ["--exemplars", "a/000.png", "b\udce9.png", "--min-distance", "0", "--block", "3"]
    out = listed(data, tmp_path / "other", *more)
    facts = read_facts(out)
    options = recalled(facts)
    assert options.data.path == data and options.wanted.exemplars == ("a/000.png", "b\udce9.png")
    assert options.scenes.min_distance == 0 and options.fair.block == 3
    assert options.output.folder == out and options.embedding.folder == out / "no"
    del facts["options"]["fair"]  # of a version before
    assert recalled(facts).fair.folds == 5
    del facts["options"]["data"]
    with pytest.raises(UserError, match="ranking.json: expected all options"):
        recalled(facts)


def test_originals_are_never_touched(out, data):
    def state() -> dict[Path, tuple[bytes, int]]:
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in data.rglob("*")
            if path.is_file()
        }

    before = state()
    session = opened(out)
    session.answer(0, False, True, [RED])
    session.pictures.small(0), session.pictures.large(0)
    assert state() == before
    assert json.loads((out / "ranking.json").read_text())["detector"] == "knn"
