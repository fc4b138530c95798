"""What ``tools/test_upstream.py`` reads from git, pytest and Sphinx, and how it judges it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from repository import ROOT

TOOLS = ROOT / "tools"
TREE = "/some/where/after"
PAGE = "docs/source/solo/utils.rst"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def test_added_lines_of_a_real_diff(tmp_path):
    from upstream.trees import parse_added

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
    from upstream.trees import adds_method

    patch = tmp_path / "x.patch"
    for path, expected in (("solo/methods/dino.py", False), ("solo/utils/ood/queue.py", True),
                           ("docs/source/solo/methods/dino_ood.rst", True)):  # fmt: skip
        patch.write_text(f"Subject: dino_ood\n\ndiff --git a/{path} b/{path}\n+dino_ood\n")
        assert adds_method(patch) is expected


def test_outcomes_of_a_real_report(tmp_path):
    from upstream.suite import Outcome, outcomes

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
    assert outcomes((tmp_path / "x.xml").read_text()) == {
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
        ({"a": "passed", "f": "failed"}, {"a": "failed", "f": "passed"}, [0]),
        ({"a": "passed", "f": "failed"}, {"f": "passed"}, [0]),  # a test that is gone
        ({"f": "failed"}, {"f": "failed"}, [1]),
        ({"f": "passed"}, {"f": "passed"}, [1]),  # nothing to repair: the list is wrong
        ({"f": "failed"}, {"f": "passed", "new": "skipped"}, [2]),
    ],
)
def test_verdict_on_the_suite(before, after, failing):
    from upstream.suite import Outcome, compare

    runs = [{name: Outcome(status) for name, status in run.items()} for run in (before, after)]
    results = compare(*runs, fixed=["f"])
    assert [i for i, result in enumerate(results) if result.ok is False] == failing


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
    from upstream.docs import complaints, documented, located

    found = complaints(WARNINGS, TREE)
    assert [(c.where, c.line) for c in found] == [
        ("", None), (PAGE, 7), ("solo/a.py:docstring of solo.a.A.__init__", 12), ("", None),
    ]  # fmt: skip
    directives = documented({PAGE: {9: ".. automethod:: solo.a.A.gone", 10: "   :noindex:"}})
    assert located(found[3], directives).where == PAGE
    assert located(found[3], directives).line == 9
    assert located(found[1], directives) == found[1]


def test_verdict_on_the_pages():
    from upstream.docs import Complaint, compare

    old = Complaint(PAGE, 7, "Title underline too short.")
    moved = Complaint(PAGE, 9, "Title underline too short.")
    docstring = Complaint("solo/new.py:docstring of solo.new.f", 3, "Unexpected indentation.")

    def failing(after, added, new_files=()):
        results = compare([old], after, added, list(new_files))
        return [i for i, result in enumerate(results) if result.ok is False]

    assert failing([moved], {PAGE: {3: "", 4: ""}}) == []
    assert failing([moved], {PAGE: {8: "Title", 9: "="}}) == [1]  # an old one, but on our line
    assert failing([old, moved], {PAGE: {3: ""}}) == [0]
    assert failing([old, docstring], {}, ["solo/new.py"]) == [0, 1]
