"""What ``tools/matrix`` reads from git, pytest and Sphinx, how it judges it, and what it keeps."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from matrix import docs, program, results, suite, table
from matrix.hiding import hide
from matrix.hosts import HOSTS
from matrix.runs import PRESENCE
from matrix.suite import Outcome
from matrix.trees import SERIES, TREES, adds_method, parse_added

TREE = "/some/where/after"
PAGE = "docs/source/solo/utils.rst"


@pytest.fixture(autouse=True)
def own_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "WORK", tmp_path / "work")


def test_hiding_takes_package_plugin_and_entry_points_away(tmp_path):
    found = []
    for env in ({}, {"PYTHONPATH": str(hide(tmp_path / "hidden"))}):
        command = [sys.executable, "-c", PRESENCE]
        found.append(program.run(command, tmp_path, "presence", env=env).output.split())
    assert found == [["True"] * 3, ["False"] * 3]


def test_failed_program_is_one_line_without_folders(tmp_path):
    code = "print('before'); raise FileNotFoundError('/a/b/c.txt is not there')"
    with pytest.raises(program.Failed, match="^FileNotFoundError: c.txt is not there$"):
        program.run([sys.executable, "-c", code], tmp_path, "bad")
    assert program.run([sys.executable, "-c", code], tmp_path, "bad", expected=[1]).code == 1


def test_program_that_hangs_is_ended_with_what_it_started(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    with pytest.raises(program.Failed, match="no end within 5 s"):
        program.run([sys.executable, "-S", "-c", code], tmp_path, "hangs", timeout=5)
    state = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    until = time.monotonic() + 60  # a killed process takes its time to end on a busy machine
    while state.exists() and ") Z " not in state.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert not state.exists() or ") Z " in state.read_text()


def test_results_are_kept_until_the_state_of_their_row_changes(tmp_path):
    path = tmp_path / "results.json"
    left = tmp_path / "runs/today/pretrain"
    assert results.current("today", ["torch 1"], path) == {}
    left.mkdir(parents=True)
    results.keep("today", "pretrain", "yes", None, path)
    assert results.current("today", ["torch 1"], path)["pretrain"]["result"] == "yes"
    assert left.exists()
    assert results.current("today", ["torch 2"], path) == {}
    assert not left.exists()


def test_table_shows_results_and_each_note_once(tmp_path):
    path = tmp_path / "results.json"
    for host in HOSTS[-2:]:
        results.current(host.key, ["torch 1", "9187ea3 unmodified"], path)
        results.keep(host.key, "k-NN", "yes", "by the launcher", path)
    results.keep("in-tree", "DDP", "no", "`Error: it hangs`", path)
    text = table.table(results.read(path))
    assert "| main + our series, plugin |   |   |   | yes ¹ |   |   |   |" in text
    assert "| main + our series, in-tree method |   |   |   | yes ¹ |   | no ² |   |" in text
    assert "¹ by the launcher  \n² `Error: it hangs`" in text and "commit 9187ea3" in text
    page = tmp_path / "page.md"
    page.write_text(f"a\n{table.START}\nold\n{table.END}\nb\n")
    assert table.publish(text, page)
    assert page.read_text() == f"a\n{table.START}\n{text}\n{table.END}\nb\n"


def test_added_lines_of_a_real_diff(tmp_path):
    def git(*args):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *args]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    git("init", "-q")
    (tmp_path / "old.txt").write_text("1\n2\n-- 3\n4\n")
    git("add", ".")
    git("commit", "-qm", "old")
    (tmp_path / "old.txt").write_text("1\n++ b/fake\n3\n4\n5\n")
    (tmp_path / "new.txt").write_text("a\nb\n")
    git("add", ".")
    assert parse_added(git("diff", "-U0", "--no-color", "--cached").stdout) == {
        "new.txt": {1: "a", 2: "b"},
        "old.txt": {2: "++ b/fake", 3: "3", 5: "5"},
    }


def test_patches_of_the_method_are_recognised_by_path(tmp_path):
    patch = tmp_path / "x.patch"
    for path, expected in (("solo/methods/dino.py", False), ("solo/utils/ood/queue.py", True),
                           ("docs/source/solo/methods/dino_ood.rst", True)):  # fmt: skip
        patch.write_text(f"Subject: dino_ood\n\ndiff --git a/{path} b/{path}\n+dino_ood\n")
        assert adds_method(patch) is expected
    assert TREES["series"] == SERIES
    assert 0 < len(TREES["repairs"]) < len(SERIES)


def test_outcomes_of_a_real_report(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/test_a.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_bad(n):\n"
        "    try: int('x')\n"
        "    except ValueError as error: raise KeyError(n) from error\n"
        "class TestIt:\n    def test_skipped(self): pytest.skip('why')\n"
    )
    (tmp_path / "folder/test_broken.py").write_text("import not_there\n")
    command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1",
               "--continue-on-collection-errors", "--junitxml=x.xml", "folder"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert suite.outcomes((tmp_path / "x.xml").read_text()) == {
        "folder/test_a.py::test_good": Outcome("passed"),
        "folder/test_a.py::test_bad[1]": Outcome("failed", "KeyError: 1"),
        "folder/test_a.py::test_bad[2]": Outcome("failed", "KeyError: 2"),
        "folder/test_a.py::TestIt::test_skipped": Outcome("skipped", "why"),
        "folder/test_broken.py::(import)": Outcome(
            "error", "ModuleNotFoundError: No module named 'not_there'"
        ),
    }


@pytest.mark.parametrize(
    "before, after, failing",
    [
        ({"a": "passed", "f": "failed"}, {"a": "passed", "f": "passed"}, []),
        ({"a": "passed", "f": "failed"}, {"a": "failed", "f": "passed"}, ["broken"]),
        ({"a": "passed", "f": "failed"}, {"f": "passed"}, ["broken"]),  # a test that is gone
        ({"f": "failed"}, {"f": "failed"}, ["unrepaired"]),
        ({"f": "passed"}, {"f": "passed"}, ["unrepaired"]),  # the list is wrong
        ({"f": "failed"}, {"f": "passed", "new": "skipped"}, ["new_bad"]),
    ],
)
def test_verdict_on_the_suite(before, after, failing):
    runs = [{name: Outcome(status) for name, status in run.items()} for run in (before, after)]
    found = suite.compare(*runs, fixed=["f"])
    assert [n for n in ("broken", "unrepaired", "new_bad") if getattr(found, n)] == failing


WARNINGS = f"""\
WARNING: html_static_path entry '_static' does not exist
{TREE}/{PAGE}:7: WARNING: Title underline too short. [docutils]
{TREE}/solo/a.py:docstring of solo.a.A.__init__:12: ERROR: Unexpected indentation. [docutils]
WARNING: autodoc: failed to import 'a.A.gone' from module 'solo'; the following exception was:
Traceback (most recent call last):
AttributeError: gone
 [autodoc.import_object]
"""


def test_complaints_have_a_place_below_the_tree():
    found = docs.complaints(WARNINGS, TREE)
    assert [(c.where, c.line) for c in found] == [
        ("", None), (PAGE, 7), ("solo/a.py:docstring of solo.a.A.__init__", 12), ("", None),
    ]  # fmt: skip
    directives = docs.documented({PAGE: {9: ".. automethod:: solo.a.A.gone", 10: "   :noindex:"}})
    assert docs.located(found[3], directives).where == PAGE
    assert docs.located(found[3], directives).line == 9
    assert docs.located(found[1], directives) == found[1]


def test_verdict_on_the_pages():
    old = docs.Complaint(PAGE, 7, "Title underline too short.")
    moved = docs.Complaint(PAGE, 9, "Title underline too short.")
    docstring = docs.Complaint("solo/new.py:docstring of solo.new.f", 3, "Unexpected indentation.")

    def failing(after, added, new_files=()):
        found = docs.compare([old], after, added, list(new_files))
        return [name for name in ("new", "ours") if getattr(found, name)]

    assert failing([moved], {PAGE: {3: "", 4: ""}}) == []
    assert failing([moved], {PAGE: {8: "Title", 9: "="}}) == ["ours"]  # an old one on our line
    assert failing([old, moved], {PAGE: {3: ""}}) == ["new"]
    assert failing([old, docstring], {}, ["solo/new.py"]) == ["new", "ours"]
