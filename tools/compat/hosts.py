"""The rows of the table: which solo-learn, which versions, and the tree it runs from."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from compat.program import Failed, run
from solo_ood.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SERIES = ROOT / "patches/solo-learn-main"
# Neither an identity nor a signature of the user's belongs into these throw-away trees.
GIT = ["git", "-c", "user.name=compat", "-c", "user.email=compat@localhost", "-c",
       "commit.gpgsign=false", "-c", "core.autocrlf=false"]  # fmt: skip


@dataclass(frozen=True)
class Host:
    """One row of the table.

    Attributes:
        key: its name on the command line and in the results.
        label: its name in the table.
        environment: ``today`` (the running interpreter's) or ``pins`` (a venv of its own).
        release: whether it is 1.0.2, installed in the environment, with this project's scripts.
        series: which part of the patches for the main branch it has, if any.
        launcher: whether k-NN and UMAP are run by ``python -m solo_ood``.
        note: what a reader has to know of the row.
    """

    key: str
    label: str
    environment: str = "today"
    release: bool = False
    series: str | None = None
    launcher: bool = False
    note: str | None = None

    @property
    def in_tree(self) -> bool:
        """Whether the method is solo-learn's own and this package must not be there."""
        return self.series == "in-tree"


HOSTS = (
    Host("release", "solo-learn 1.0.2 + patches", release=True),
    Host(
        "pins",
        "main, its own pins",
        environment="pins",
        launcher=True,
        note="`setuptools<81` is needed beside them: Lightning 2.1.2 imports `pkg_resources`",
    ),
    Host("today", "main, today's versions", launcher=True),
    Host("plugin", "main + our series, plugin", series="plugin"),
    Host("in-tree", "main + our series, in-tree method", series="in-tree"),
)


def patches(host: Host) -> list[Path]:
    """Return the host's patches; the last one of the series puts the method into solo-learn."""
    found = sorted(SERIES.glob("*.patch")) if host.series else []
    return found if host.in_tree else found[:-1]


def check(checkout: Path | None) -> Path:
    """Return the git checkout that the trees are cloned from.

    Raises:
        ValueError: if it is none of solo-learn's main branch.
    """
    if checkout is None or not all((checkout / p).exists() for p in (".git", "main_umap.py")):
        raise UserError(
            "--checkout",
            expected="a git checkout of solo-learn's main branch",
            got=checkout or "nothing",
            remedy="Call `make compatibility SOLO_LEARN_CHECKOUT=PATH`, or choose"
            " `--rows release`, which needs none.",
        )
    return checkout.resolve()


def make_tree(host: Host, checkout: Path, work: Path, timeout: float) -> tuple[Path, str]:
    """Clone the checkout's commit for the host and apply its patches; return tree and state.

    The state is the commit and a digest of the patches; a tree that has it already is kept.

    Raises:
        RuntimeError: if git cannot clone it or a patch does not apply.
    """
    tree = work / "trees" / (host.series or "main")
    log = work / "logs" / f"tree-{tree.name}.log"
    stamp = tree.with_name(f"{tree.name}.json")
    digest = hashlib.sha256(b"".join(patch.read_bytes() for patch in patches(host)))
    try:
        commit = run([*GIT, "rev-parse", "HEAD"], checkout, log, timeout).strip()
        state = f"{commit[:7]} {digest.hexdigest()[:12] if host.series else 'unmodified'}"
        if stamp.is_file() and json.loads(stamp.read_text()) == [str(checkout), state]:
            return tree, state
        stamp.unlink(missing_ok=True)
        shutil.rmtree(tree, ignore_errors=True)
        # --no-local: no hard links into the checkout, which must not change
        run([*GIT, "clone", "-q", "--no-local", checkout, tree], work, log, timeout)
        if host.series:
            run([*GIT, "am", "-q", *patches(host)], tree, log, timeout)
    except Failed as failure:
        raise UserError(
            host.label,
            expected=f"git to clone {checkout} and apply {len(patches(host))} patches",
            got=str(failure),
            remedy=f"Read {log}.",
        ) from failure
    stamp.write_text(json.dumps([str(checkout), state]))
    return tree, state
