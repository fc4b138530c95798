"""Stage ``suite``: solo-learn's own tests before and after the series."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from upstream.common import Result, Work, module, say
from upstream.trees import changed

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


def run_suite(work: Work, tree: Path) -> dict[str, Outcome]:
    say(f"suite: {tree.name}, {' '.join(FOLDERS)}")
    xml = work.root / f"suite-{tree.name}.xml"
    xml.unlink(missing_ok=True)
    # Without -c pytest takes the settings of a project around the work folder, such as this one.
    options = ["-q", "-W", "ignore", "-p", "no:cacheprovider", "--durations=10",
               "--continue-on-collection-errors", "-o", "junit_family=xunit1",
               "-c", os.devnull, "--rootdir", str(tree)]  # fmt: skip
    done = work.run(
        f"suite-{tree.name}",
        module("pytest", *options, f"--junitxml={xml}", *FOLDERS),
        tree,
        env=work.blocked(tree),
        expected=(0, 1),  # 1: some tests failed
        timeout=2 * 3600,
    )
    if not xml.exists():
        raise RuntimeError(f"pytest wrote no report, see {done.log}")
    found = outcomes(xml.read_text())
    passed = sum(o.status == "passed" for o in found.values())
    say(f"suite: {tree.name}, {passed} of {len(found)} pass, {done.seconds:.0f} s")
    return found


def compare(
    before: Mapping[str, Outcome], after: Mapping[str, Outcome], fixed: list[str]
) -> list[Result]:
    """Judge every test by how it ended in both trees."""
    missing = Outcome("missing")
    passed = [name for name, o in before.items() if o.status == "passed"]
    broken = [name for name in passed if after.get(name, missing).status != "passed"]
    repaired = [
        name
        for name, o in after.items()
        if o.status == "passed" and before.get(name, o).status != "passed"
    ]
    new = [name for name in after if name not in before]
    new_bad = [name for name in new if after[name].status != "passed"]
    both = [
        name
        for name in before
        if before[name].status != "passed" and after.get(name, missing).status != "passed"
    ]
    absent = [name for name in fixed if name not in repaired]
    return [
        _row("tests that passed before pass", broken, after, f"{len(passed)} tests"),
        _row("tests that the series repairs", absent, after, f"{len(fixed)} tests"),
        _row("new tests pass", new_bad, after, f"{len(new)} tests"),
        Result(
            "suite",
            "repaired without being named",
            None,
            f"{len(set(repaired) - set(fixed))} tests",
            tuple(sorted(set(repaired) - set(fixed))),
        ),
        Result(
            "suite",
            "not passing before nor after",
            None,
            f"{len(both)} tests",
            tuple(f"{name}: {after.get(name, missing).reason}" for name in both),
        ),
    ]


def _row(check: str, bad: list[str], after: Mapping[str, Outcome], note: str) -> Result:
    missing = Outcome("missing")
    details = tuple(
        f"{name}: {after.get(name, missing).status} {after.get(name, missing).reason}"
        for name in bad
    )
    return Result("suite", check, not bad, f"{len(bad)} of {note}" if bad else note, details)


def check_suite(work: Work) -> list[Result]:
    """Run the suite in both trees and compare test by test."""
    before, after = run_suite(work, work.before), run_suite(work, work.after)
    tests = tuple(path for path in changed(work, "MD") if path.startswith("tests/"))
    return [
        *compare(before, after, FIXED),
        Result("suite", "test files that the series changes", None, f"{len(tests)} files", tests),
    ]
