"""Copies of solo-learn's main branch, with and without the patches for it, and how they differ."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from functools import cache
from pathlib import Path

from install_host import GIT

from matrix.program import ROOT, WORK, run
from solo_ood.errors import UserError

UPSTREAM = "9187ea3"  # the commit of solo-learn's main branch that the series is for
SERIES = sorted((ROOT / "patches/solo-learn-main").glob("*.patch"))
METHOD = re.compile(r"dino_ood|^solo/utils/ood/")  # paths of the method inside solo-learn


def paths_of(patch: str) -> list[str]:
    """Return the paths that a patch in git's format changes."""
    return re.findall(r"^diff --git a/.+ b/(.+)$", patch, re.M)


def adds_method(patch: Path) -> bool:
    return any(METHOD.search(path) for path in paths_of(patch.read_text()))


# By name: a tree and its patches. A user of this package needs the repairs alone.
TREES = {
    "main": [],
    "repairs": [patch for patch in SERIES if not adds_method(patch)],
    "series": SERIES,
    "alone": [],
}


@cache
def checkout() -> Path:
    """Return the git checkout that the trees are cloned from.

    Raises:
        UserError: if it is none of solo-learn's main branch.
    """
    path = Path(os.environ.get("SOLO_LEARN_CHECKOUT", "")).expanduser().resolve()
    if not (path / ".git").exists() or not (path / "main_umap.py").exists():
        raise UserError(
            "SOLO_LEARN_CHECKOUT",
            expected="the path of a git checkout of solo-learn's main branch",
            got=os.environ.get("SOLO_LEARN_CHECKOUT", "nothing"),
            remedy="Call `make compatibility SOLO_LEARN_CHECKOUT=PATH`.",
        )
    return path


@cache
def make_tree(name: str) -> Path:
    """Clone the checkout's commit and apply the patches of the tree; return its folder.

    Raises:
        Failed: if git cannot clone it, or a patch does not apply.
        UserError: if the checkout is at another commit than the patches are for.
    """
    if TREES[name] and not commit().startswith(UPSTREAM):
        raise UserError(
            "SOLO_LEARN_CHECKOUT",
            expected=f"a git checkout of solo-learn at commit {UPSTREAM}",
            got=f"{checkout()} at {commit()}",
            remedy=f"git -C PATH checkout {UPSTREAM}",
        )
    tree = WORK / "trees" / name
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    # --no-local: no hard links into the checkout, which must not change
    run([*GIT, "clone", "-q", "--no-local", checkout(), tree], WORK, f"clone-{name}")
    if TREES[name]:
        run([*GIT, "am", "-q", *TREES[name]], tree, f"am-{name}")
    return tree


@cache
def commit() -> str:
    return run([*GIT, "rev-parse", "HEAD"], checkout(), "commit").output.strip()


def state(name: str) -> str:
    """Return the commit and a digest of the tree's patches."""
    patches = hashlib.sha256(b"".join(patch.read_bytes() for patch in TREES[name]))
    return f"{commit()[:7]} {patches.hexdigest()[:12] if TREES[name] else 'unmodified'}"


def applies_alone(patch: Path) -> bool:
    """Whether a patch applies to the unmodified commit; the scratch tree is clean afterwards."""
    tree = make_tree("alone")
    applied = run([*GIT, "am", "-q", patch], tree, "am-alone", expected=(0, 1, 128)).code == 0
    undo = ["reset", "-q", "--hard", commit()] if applied else ["am", "--abort"]
    run([*GIT, *undo], tree, "am-undo")
    return applied


def changed(kinds: str) -> list[str]:
    """Return the files that the series adds (A) or modifies (M), as git's ``--diff-filter``."""
    return diff("--name-only", f"--diff-filter={kinds}").splitlines()


def diff(*options: str) -> str:
    """Return what ``git diff`` prints of the series."""
    command = [*GIT, "diff", "--no-color", "--no-renames", *options, commit()]
    return run(command, make_tree("series"), "diff", expected=(0, 2)).output


def parse_added(diff: str) -> dict[str, dict[int, str]]:
    """Read ``git diff -U0``: path, number in the new file, text of every added line."""
    files: dict[str, dict[int, str]] = {}
    path, number, rest = "", 0, 0
    for line in diff.splitlines():
        hunk = re.match(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line)
        if rest and line.startswith(("+", "-")):  # first: a changed line may look like a header
            rest -= 1
            if line.startswith("+"):
                files.setdefault(path, {})[number] = line[1:]
                number += 1
        elif line.startswith("+++ "):
            path = line.removeprefix("+++ b/")
        elif hunk:
            number = int(hunk[2])
            rest = int(hunk[1] or 1) + int(hunk[3] or 1)
    return files
