"""``patches/solo-learn-main`` on a clean checkout: upstream's tests, style and documentation."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from matrix import docs, style, suite, trees
from matrix.program import Failed
from solo_ood.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def applied():
    """Every patch applies on those before it; without it there is nothing to judge."""
    try:
        return trees.make_tree("series")
    except (Failed, UserError) as error:
        pytest.fail(str(error), pytrace=False)


def test_patches_apply_in_order(applied):
    log = trees.diff("--stat")
    assert log and len(trees.SERIES) >= 10
    done = trees.run([*trees.GIT, "log", "--format=%s", f"{trees.commit()}..HEAD"], applied, "log")
    assert len(done.output.splitlines()) == len(trees.SERIES)


def test_patches_that_apply_alone(record_property):
    alone = [patch for patch in trees.SERIES if trees.applies_alone(patch)]
    others = [patch.name[:4] for patch in trees.SERIES if patch not in alone]
    note(record_property, f"{len(alone)} of {len(trees.SERIES)} alone, not {', '.join(others)}")
    assert alone


@pytest.fixture(scope="module")
def suites():
    """Upstream's tests before and after; how they ended, and the comparison."""
    before, after = suite.run_suite("main"), suite.run_suite("series")
    return before, after, suite.compare(before, after, suite.FIXED)


def listed(outcomes, names):
    return [f"{n}: {outcomes[n].status} {outcomes[n].reason}" for n in names if n in outcomes]


def note(record_property, text, details=()):
    record_property("note", "".join([text, *(f"\n    {line}" for line in details)]))


def test_upstream_tests_that_passed_before_pass(suites, record_property):
    before, after, found = suites
    note(record_property, f"before {len(found.passed)} of {len(before)} pass")
    assert found.passed and not found.broken, listed(after, found.broken)


def test_series_repairs_the_tests_that_it_names(suites, record_property):
    _, after, found = suites
    note(record_property, f"{len(suite.FIXED)} tests; repaired besides:", found.unnamed)
    assert not found.unrepaired, listed(after, found.unrepaired)


def test_new_tests_pass(suites, record_property):
    _, after, found = suites
    passes = sum(outcome.status == "passed" for outcome in after.values())
    note(record_property, f"after {passes} of {len(after)} pass, {len(found.new)} new; neither:",
         listed(after, found.neither))  # fmt: skip
    assert found.new and not found.new_bad, listed(after, found.new_bad)


def test_changed_tests_are_named(record_property):
    tests = [path for path in trees.changed("MD") if path.startswith("tests/")]
    note(record_property, f"{len(tests)} test files of upstream changed:", tests)
    assert not [path for path in trees.changed("D") if path.startswith("tests/")]


@pytest.mark.parametrize("name", style.CHECKS)
def test_style(name, record_property):
    files, bad, old = style.judge(style.CHECKS[name])
    note(record_property, f"{len(files)} files", [f"{path}: no better before" for path in old])
    assert not bad


def test_black_is_the_version_of_upstream():
    assert version("black") == style.BLACK


def test_style_of_the_added_lines():
    complaints = [line for line in trees.diff("--check").splitlines() if line[:1] != "+"]
    assert not complaints


@pytest.fixture(scope="module")
def pages():
    """The warnings before and after, their comparison, the lines of the series, and the pages."""
    (before, _), (after, html) = docs.build("main"), docs.build("series")
    added = trees.parse_added(trees.diff("-U0"))
    return before, after, docs.compare(before, after, added, trees.changed("A")), added, html


def test_no_new_warning_of_sphinx(pages, record_property):
    before, after, found, *_ = pages
    note(record_property, f"{len(after)} warnings, before {len(before)}")
    assert not found.new


def test_no_warning_of_sphinx_stems_from_the_series(pages, record_property):
    found = pages[2]
    note(record_property, f"{len(found.old)} old ones on changed pages:", found.old)
    assert not found.ours


def test_documented_objects_are_shown(pages, record_property):
    *_, added, html = pages
    names = docs.documented(added)
    number = len({path for path, _ in names.values()})
    note(record_property, f"{len(names)} objects on {number} pages")
    assert names and not docs.absent(names, html)
