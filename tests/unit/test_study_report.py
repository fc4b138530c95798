"""The tables of a study, from results that are made up: nothing is trained here."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from solo_ood.study import report, table, terminal
from solo_ood.study.options import StudyOptions
from solo_ood.study.plan import Arm, DataPlan, Study

FEW = {"random": [50, 60, 70, 55, 65], "off": [52, 61, 69, 55, 66], "good": [55, 66, 76, 59, 72]}


@pytest.fixture
def study():
    arms = {name: Arm([f"ood={name}"]) for name in ("random", "off", "good")}
    return Study("Does it help?", arms, data=DataPlan("digits"))


@pytest.fixture
def results(study):
    """Of every cell; ``good`` is 5 points better than ``random`` on Few, the rest is noise."""
    found = {}
    for cell in study.cells:
        accuracy = {"All": 80.0 + cell.seed, "Many": 90.0, "Medium": 70.0}
        accuracy["Few"] = float(FEW[cell.arm][cell.seed])
        classes = [
            {"name": "a", "images": 90, "fresh": 900, "replayed": 0, "distinct": 0},
            {"name": "b", "images": 10, "fresh": 100, "replayed": 40, "distinct": 4},
        ]
        found[cell] = {
            "cell": vars(cell),
            "settings": study.settings(cell),
            "accuracy": {"linear": accuracy, "knn": accuracy},
            "logged": {} if cell.arm == "off" else {"flag_rate": 0.05, "lift": 2.0},
            "classes": classes,
            "seconds": {"train": 1.0, "evaluate": 1.0},
        }
    return found


def test_differences_are_those_of_the_pairs(study, results):
    rows = table.differences(study, results)
    (few,) = (
        row
        for row in rows
        if (row.probe, row.arm, row.against, row.group) == ("linear", "good", "random", "Few")
    )
    assert few.difference.mean == pytest.approx(5.6) and few.difference.n == 5
    assert 4 <= few.difference.low < 5.6 < few.difference.high <= 7
    assert few.difference.p == 2 / 2**5
    assert few.p_holm == pytest.approx(8 * 2 / 2**5)  # 2 arms x 4 groups were tested


def test_a_pair_that_lacks_an_arm_is_left_out(study, results):
    (gone, *_) = (cell for cell in results if cell.arm == "good")
    del results[gone]
    rows = [row for row in table.differences(study, results) if row.arm == "good"]
    assert {row.difference.n for row in rows} == {4}
    assert "**1 of 15 cells are missing.**" in report._markdown(
        study, results, rows, StudyOptions("x", None)
    )


def test_all_files_are_written_and_say_the_same(study, results, tmp_path):
    options = StudyOptions("mine", tmp_path, command="solo-ood study mine")
    text = report.write(study, results, options)
    assert {path.name for path in tmp_path.iterdir()} == set(report.FILES)
    assert f"written: {tmp_path}/" in text and "good               5  " in text
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15 * 2 and {row["arm"] for row in rows} == set(FEW)
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["cells"]) == 15 and content["command"] == "solo-ood study mine"
    page = (tmp_path / "report.html").read_text()
    assert "good: +5.6 points on Few" in page and "data:image/png" in page


def test_the_terminal_shows_the_main_figures_in_80_columns(results, study):
    long = "class-balanced sampling of a long name"
    for cell in list(results):
        if cell.arm == "off":
            results[replace(cell, arm=long)] = {**results[cell], "logged": {"flag_rate": 0.05}}
    wide = replace(study, arms={**study.arms, long: study.arms["off"]})
    lines = terminal.text(wide, results, table.differences(wide, results)).splitlines()
    assert max(map(len, lines)) <= 80
    (at, *_) = (i for i, line in enumerate(lines) if line.startswith("good "))
    assert "+5.6 [+" in lines[at] and "pairs" not in lines[at] and "All" in lines[at - 2]
    assert lines.count(long) == 5  # two probes beside two references, and what was replayed
    assert any(line.split() == ["good", "5.0", "2.00", "–", "–"] for line in lines)


def test_the_tables_of_the_markdown_are_tables(study, results, tmp_path):
    report.write(study, results, StudyOptions("mine", tmp_path))
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse((tmp_path / "results.md").read_text())
    assert sum(token.type == "table_open" for token in tokens) == 2 * 2 + 2 + 2
    assert "| good | 5 |" in (tmp_path / "results.md").read_text()
    assert "900 + 0" not in (tmp_path / "results.md").read_text()  # nothing replayed: no addend
    assert "100 + 40 (4)" in (tmp_path / "results.md").read_text()
