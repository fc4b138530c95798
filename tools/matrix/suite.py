"""Solo-learn's own tests before and after the series."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from matrix.hiding import hide
from matrix.program import WORK, Failed, run
from matrix.trees import make_tree

# What solo-learn's own CI runs; tests/dali is not in it, since it needs NVIDIA DALI and a GPU.
FOLDERS = [f"tests/{name}" for name in ("args", "backbones", "data", "losses", "methods", "utils")]
# Tests that fail today and that the series has to repair.
FIXED = ["tests/utils/test_knn.py::test_knn"]


@dataclass(frozen=True)
class Outcome:
    """How a test ended, and the first line of the reason if it did not pass."""

    status: str
    reason: str = ""


def outcomes(xml: str) -> dict[str, Outcome]:
    """Read pytest's JUnit report (family xunit1): outcome by test id."""
    found: dict[str, Outcome] = {}
    for case in ElementTree.fromstring(xml).iter("testcase"):
        path, classname = case.get("file", ""), case.get("classname", "")
        classes = classname.removeprefix(path.removesuffix(".py").replace("/", ".")).split(".")
        # A module that could not be imported has no class, and its own name for a test's.
        name = case.get("name", "") if classname else "(import)"
        key = "::".join([path, *filter(None, classes), name])
        found[key] = _outcome(case)
    return found


def _outcome(case: ElementTree.Element) -> Outcome:
    for kind, status in (("error", "error"), ("failure", "failed"), ("skipped", "skipped")):
        node = case.find(kind)
        if node is not None:
            return Outcome(status, _reason(node))
    return Outcome("passed")


def _reason(node: ElementTree.Element) -> str:
    """Return the exception's line: its type and the first line of its message."""
    lines = [line[1:].strip() for line in (node.text or "").splitlines() if line.startswith("E ")]
    text = lines[-1] if lines else node.get("message", "")
    return next(iter(text.splitlines()), "")[:160]


def run_suite(name: str) -> dict[str, Outcome]:
    """Run the tests of a tree where this package is hidden."""
    tree, xml = make_tree(name), WORK / f"suite-{name}.xml"
    xml.unlink(missing_ok=True)
    # Without -c pytest takes the settings of a project around the work folder, such as this one.
    options = ["-q", "-W", "ignore", "-p", "no:cacheprovider", "--durations=10",
               "--continue-on-collection-errors", "-o", "junit_family=xunit1",
               "-c", os.devnull, "--rootdir", tree, f"--junitxml={xml}"]  # fmt: skip
    run(
        [sys.executable, "-m", "pytest", *options, *FOLDERS],
        tree,
        f"suite-{name}",
        env={"PYTHONPATH": os.pathsep.join([str(tree), str(hide(WORK / "hidden"))])},
        expected=(0, 1),  # 1: some tests failed
        timeout=2 * 3600,
    )
    if not xml.exists():
        raise Failed(f"pytest wrote no report, see logs/suite-{name}.log")
    return outcomes(xml.read_text())


@dataclass(frozen=True)
class Comparison:
    """Tests, by how they ended in both trees.

    Attributes:
        passed: that passed before.
        broken: of these, that do not any more.
        unrepaired: that the series has to repair, and does not.
        unnamed: that it repairs besides.
        new: that were not there before.
        new_bad: of these, that do not pass.
        neither: that pass neither before nor after.
    """

    passed: list[str]
    broken: list[str]
    unrepaired: list[str]
    unnamed: list[str]
    new: list[str]
    new_bad: list[str]
    neither: list[str]


def compare(
    before: Mapping[str, Outcome], after: Mapping[str, Outcome], fixed: Collection[str]
) -> Comparison:
    """Compare two runs test by test."""
    passed = [name for name, outcome in before.items() if outcome.status == "passed"]
    passes = {name for name, outcome in after.items() if outcome.status == "passed"}
    bad_before = [name for name in before if name not in passed]
    repaired = [name for name in bad_before if name in passes]
    new = [name for name in after if name not in before]
    return Comparison(
        passed=passed,
        broken=[name for name in passed if name not in passes],
        unrepaired=[name for name in fixed if name not in repaired],
        unnamed=[name for name in repaired if name not in fixed],
        new=new,
        new_bad=[name for name in new if name not in passes],
        neither=[name for name in bad_before if name not in passes],
    )
