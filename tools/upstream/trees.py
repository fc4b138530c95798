"""Stage ``apply``: the trees with and without the series, and which patch applies alone."""

from __future__ import annotations

import re
from pathlib import Path

from solo_ood.errors import UserError
from upstream.common import Result, Work, say

UPSTREAM = "9187ea3"  # the commit of solo-learn's main branch that the series is for
METHOD = re.compile(r"dino_ood|^solo/utils/ood/")  # paths of the method inside solo-learn
BASE = "upstream-base"  # the tag of that commit in every tree
# Neither an identity nor a signature of the user's belongs into these throw-away trees.
GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=0"]


def series(folder: Path) -> list[Path]:
    """Return the patches in their order.

    Raises:
        ValueError: if there are none.
    """
    patches = sorted(folder.glob("*.patch"))
    if not patches:
        raise UserError(
            "--patches",
            expected="a folder with *.patch files",
            got=folder,
            remedy="Run this in a complete checkout of solo-ood.",
        )
    return patches


def paths_of(patch: str) -> list[str]:
    """Return the paths that a patch in git's format changes."""
    return re.findall(r"^diff --git a/.+ b/(.+)$", patch, re.M)


def adds_method(patch: Path) -> bool:
    return any(METHOD.search(path) for path in paths_of(patch.read_text()))


def check_commit(work: Work) -> None:
    """Raise ``ValueError`` unless the checkout stands at the commit that the series is for."""
    done = work.run("head", ["git", "-C", work.checkout, "rev-parse", "HEAD"], work.root,
                    expected=(0, 128))  # fmt: skip
    if done.code or not done.output.startswith(UPSTREAM):
        raise UserError(
            "SOLO_LEARN_CHECKOUT",
            expected=f"a git checkout of solo-learn at commit {UPSTREAM}",
            got=f"{work.checkout} ({done.output.strip()})",
            remedy=f"git clone https://github.com/vturrisi/solo-learn PATH && "
            f"git -C PATH checkout {UPSTREAM}",
        )


def clone(work: Work, name: str, patches: list[Path]) -> str | None:
    """Clone the checkout's commit into ``name``, apply patches; return the one that fails."""
    tree = work.fresh(name)
    done = work.run(f"clone-{name}", [*GIT, "clone", "-q", work.checkout, tree], work.root)
    if done.code:
        raise RuntimeError(f"git clone failed, see {done.log}")
    work.run("tag", [*GIT, "tag", BASE], tree)
    for patch in patches:
        if work.run(f"am-{name}", [*GIT, "am", "-q", patch], tree).code:
            return patch.name
    return None


def applies_alone(work: Work, patch: Path, tree: Path) -> bool:
    """Whether a patch applies to the unmodified commit; the scratch tree is clean afterwards."""
    done = work.run("am-alone", [*GIT, "am", "-q", patch], tree, expected=(0, 128, 1))
    undo = ["reset", "-q", "--hard", BASE] if done.code == 0 else ["am", "--abort"]
    if work.run("am-undo", [*GIT, *undo], tree).code:
        raise RuntimeError(f"cannot clean {tree} after {patch.name}")
    return done.code == 0


def make_trees(work: Work) -> list[Result]:
    """Make the three trees and report on every patch."""
    check_commit(work)
    say(f"apply: {len(work.patches)} patches")
    clone(work, work.before.name, [])
    failed = clone(work, work.after.name, work.patches)
    if failed:
        raise RuntimeError(f"{failed} does not apply on the patches before it")
    failed = clone(work, work.plugin.name, [p for p in work.patches if not adds_method(p)])
    if failed:
        raise RuntimeError(f"{failed} does not apply without the patches that add the method")
    clone(work, "alone", [])
    alone = {patch.name: applies_alone(work, patch, work.root / "alone") for patch in work.patches}
    details = tuple(f"{'yes' if ok else 'no '} {name}" for name, ok in alone.items())
    note = f"{sum(alone.values())} of {len(alone)}"
    return [
        Result("apply", "every patch on those before it", True, f"{len(work.patches)} patches"),
        Result("apply", "patches that apply alone", None, note, details),
    ]


def changed(work: Work, kinds: str) -> list[str]:
    """Return the files that the series adds (A) or modifies (M), as git's ``--diff-filter``."""
    options = ["--name-only", "--no-renames", f"--diff-filter={kinds}"]
    return work.run("changed", [*GIT, "diff", *options, BASE], work.after).output.splitlines()


def added_lines(work: Work) -> dict[str, dict[int, str]]:
    """Return, for every file that the series touches, its new lines by their number."""
    options = ["-U0", "--no-color", "--no-renames"]
    return parse_added(work.run("diff", [*GIT, "diff", *options, BASE], work.after).output)


def parse_added(diff: str) -> dict[str, dict[int, str]]:
    """Read ``git diff -U0``: path, number in the new file, text."""
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
