"""What solo-learn's pre-commit asks for, on the files that the series touches."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matrix.program import WORK, run
from matrix.trees import changed, make_tree

BLACK = "23.12.0"  # as in solo-learn's .pre-commit-config.yaml, like the hooks below
Checker = Callable[[Path, list[str]], list[str]]  # tree, files -> files that do not comply


@dataclass(frozen=True)
class Check:
    """A checker, the suffixes of its files (none: all), and which of git's kinds of change."""

    checker: Checker
    suffixes: tuple[str, ...] = ()
    kinds: str = "AM"


def black(tree: Path, files: list[str]) -> list[str]:
    command = ["-m", "black", "--line-length", "100", "--check", *files]
    done = run([sys.executable, *command], tree, "black", expected=(0, 1))
    return _named(done.output, r"^(?:would reformat|error: cannot format) (.+?)(?:: .*)?$", tree)


def isort(tree: Path, files: list[str]) -> list[str]:
    """Solo-learn sorts ``solo`` both as its own and as a foreign package: either will do."""
    bad = set(files)
    for place in ("--project", "--thirdparty"):
        command = ["-m", "isort", "--profile", "black", "-l", "100", "--check", place, "solo"]
        done = run([sys.executable, *command, *files], tree, f"isort{place}", expected=(0, 1))
        bad &= set(_named(done.output, r"^ERROR: (.+?) Imports are incorrectly", tree))
    return sorted(bad)


def _named(output: str, pattern: str, tree: Path) -> list[str]:
    paths = [Path(path) for path in re.findall(pattern, output, re.M)]
    return [str(path.relative_to(tree) if path.is_absolute() else path) for path in paths]


def hook(name: str, tree: Path, files: list[str]) -> list[str]:
    """Some hooks repair the file, so they get a copy."""
    copies, bad = WORK / "style", []
    shutil.rmtree(copies, ignore_errors=True)
    for path in files:
        copy = copies / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / path, copy)
        command = [sys.executable, "-m", f"pre_commit_hooks.{name}", path]
        if run(command, copies, f"hook-{name}", expected=(0, 1)).code:
            bad.append(path)
    return bad


# Those of solo-learn's hooks for notebooks have nothing to look at.
CHECKS = {
    "black": Check(black, (".py",)),
    "isort": Check(isort, (".py",), kinds="A"),
    "end_of_file_fixer": Check(partial(hook, "end_of_file_fixer")),
    "trailing_whitespace_fixer": Check(partial(hook, "trailing_whitespace_fixer")),
    "detect_private_key": Check(partial(hook, "detect_private_key")),
    "check_docstring_first": Check(partial(hook, "check_docstring_first"), (".py",)),
    "check_yaml": Check(partial(hook, "check_yaml"), (".yaml", ".yml")),
    "check_json": Check(partial(hook, "check_json"), (".json",)),
    "check_toml": Check(partial(hook, "check_toml"), (".toml",)),
}


def judge(check: Check) -> tuple[list[str], list[str], list[str]]:
    """Return the files looked at, those that do not comply, and those that did not before, too."""
    files = [p for p in changed(check.kinds) if not check.suffixes or p.endswith(check.suffixes)]
    if not files:
        return [], [], []
    before = make_tree("main")
    bad = check.checker(make_tree("series"), files)
    existing = [path for path in bad if (before / path).exists()]
    old = check.checker(before, existing) if existing else []
    return files, [path for path in bad if path not in old], old
