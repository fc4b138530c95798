"""Stage ``style``: what solo-learn's pre-commit asks for, on the files that the series touches."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from solo_ood.errors import UserError
from upstream.common import Result, Work, module, say
from upstream.trees import BASE, GIT, changed

BLACK = "23.12.0"  # as in solo-learn's .pre-commit-config.yaml, like the hooks below
BLACK_OPTIONS = ["--line-length", "100", "--check"]
HOOKS = {
    "end_of_file_fixer": (),
    "trailing_whitespace_fixer": (),
    "detect_private_key": (),
    "check_docstring_first": (".py",),
    "check_yaml": (".yaml", ".yml"),
    "check_json": (".json",),
    "check_toml": (".toml",),
}
Checker = Callable[[Path, list[str]], list[str]]  # tree, files -> files that do not comply


def judge(name: str, files: list[str], checker: Checker, work: Work) -> Result:
    """Check the files after the series; one that was no better before is only reported."""
    bad = checker(work.after, files)
    existing = [path for path in bad if (work.before / path).exists()]
    old = checker(work.before, existing) if existing else []
    ours = [path for path in bad if path not in old]
    note = f"{len(files)} files" + (f"; {len(old)} did not comply before" if old else "")
    details = tuple([*ours, *(f"{path} (before, too)" for path in old)])
    return Result("style", name, not ours, note, details)


def black(work: Work) -> Checker:
    def check(tree: Path, files: list[str]) -> list[str]:
        command = module("black", *BLACK_OPTIONS, *files)
        done = work.run(f"black-{tree.name}", command, tree, expected=(0, 1))
        return _named(
            done.output, r"^(?:would reformat|error: cannot format) (.+?)(?:: .*)?$", tree
        )

    return check


def isort(work: Work) -> Checker:
    """Solo-learn sorts ``solo`` both as its own and as a foreign package: either will do."""

    def check(tree: Path, files: list[str]) -> list[str]:
        bad = set(files)
        for place in ("--project", "--thirdparty"):
            command = module("isort", "--profile", "black", "-l", "100", "--check", place, "solo")
            done = work.run(f"isort{place}", [*command, *files], tree, expected=(0, 1))
            bad &= set(_named(done.output, r"^ERROR: (.+?) Imports are incorrectly", tree))
        return sorted(bad)

    return check


def _named(output: str, pattern: str, tree: Path) -> list[str]:
    paths = [Path(path) for path in re.findall(pattern, output, re.M)]
    return [str(path.relative_to(tree) if path.is_absolute() else path) for path in paths]


def hook(work: Work, name: str) -> Checker:
    """Some hooks repair the file, so they get a copy."""

    def check(tree: Path, files: list[str]) -> list[str]:
        copies = work.fresh("style")
        bad = []
        for path in files:
            copy = copies / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / path, copy)
            command = module(f"pre_commit_hooks.{name}", path)
            if work.run(f"hook-{name}", command, copies, expected=(0, 1)).code:
                bad.append(path)
        return bad

    return check


def check_style(work: Work) -> list[Result]:
    """Run all checks; those of solo-learn's hooks for notebooks have nothing to look at."""
    if version("black") != BLACK:
        raise UserError("black", expected=BLACK, got=version("black"), remedy="make test-upstream")
    say("style: black, isort, pre-commit-hooks")
    touched, added = changed(work, "AM"), changed(work, "A")
    python = [path for path in touched if path.endswith(".py")]
    results = [
        judge(f"black {BLACK}", python, black(work), work),
        judge("isort, added files", [p for p in added if p.endswith(".py")], isort(work), work),
    ]
    for name, suffixes in HOOKS.items():
        files = [path for path in touched if not suffixes or path.endswith(suffixes)]
        if files:
            results.append(judge(name, files, hook(work, name), work))
    diff = work.run("diff-check", [*GIT, "diff", "--check", BASE], work.after, expected=(0, 2))
    lines = tuple(line for line in diff.output.splitlines() if not line.startswith("+"))
    return [*results, Result("style", "git diff --check, added lines", not lines, details=lines)]
