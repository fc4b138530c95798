"""The table of docs/compatibility.md and the checks of what is offered to solo-learn, by nox.

    nox -s today pins lowest table     # make compatibility
    nox -s series                      # make test-upstream

Both want SOLO_LEARN_CHECKOUT=PATH, a git checkout of solo-learn's main branch, and only read it.
What follows `--` goes to pytest, such as `-k in-tree-resume`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
RUNS = ("-v", "--durations=0", "--durations-min=1", "tools/matrix/test_runs.py")
HERE = Path(sys.executable).parent  # the environment that nox runs in
# Lightning 2.1 imports pkg_resources, which setuptools no longer has.
BESIDE_LIGHTNING_2_1 = "setuptools>=70.1,<81"

nox.options.reuse_venv = "yes"
nox.options.sessions = ["today", "pins", "lowest", "table"]


def checkout(session: nox.Session) -> Path:
    """Return the folder of SOLO_LEARN_CHECKOUT."""
    folder = Path(os.environ.get("SOLO_LEARN_CHECKOUT", "")).expanduser()
    if not (folder / ".git").exists() or not (folder / "main_umap.py").exists():
        session.error("expected: SOLO_LEARN_CHECKOUT=PATH, a git checkout of solo-learn's main")
    return folder.resolve()


def without_leftovers() -> str:
    """Return this folder for pip, without the modules of an earlier build of it."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    return "."


# In the environment that nox runs in, which `make install` made: torch is gigabytes.
@nox.session(python=False)
def today(session: nox.Session) -> None:
    """Run the rows with today's versions."""
    checkout(session)
    session.run(HERE / "pytest", *RUNS, "--environment=today", *session.posargs)


@nox.session
def pins(session: nox.Session) -> None:
    """Run the row with the versions that solo-learn's main branch pins."""
    pinned = checkout(session) / "requirements.txt"
    session.install(
        "-r", str(pinned), BESIDE_LIGHTNING_2_1, "pytest>=8", f"{without_leftovers()}[umap]"
    )
    session.run("pytest", *RUNS, "--environment=pins", *session.posargs)


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """Run the unit tests and the release's row with the lowest versions of pyproject.toml."""
    session.install("uv>=0.4", "pip>=23.1")
    session.run_install(
        "uv", "pip", "install", "--resolution=lowest-direct", "--reinstall-package=solo-ood",
        f"{without_leftovers()}[test,umap]", BESIDE_LIGHTNING_2_1,
    )  # fmt: skip
    session.run_install("python", "tools/install_host.py", "--dir", session.create_tmp())
    if session.posargs:  # those choose among the runs
        session.run("pytest", *RUNS, "--environment=lowest", *session.posargs)
        return
    session.run("pytest", "-q", "tests/unit")
    session.run("pytest", *RUNS, "--environment=lowest")


@nox.session(python=False)
def table(session: nox.Session) -> None:
    """Print the table and put it into docs/compatibility.md."""
    session.run(HERE / "python", "-m", "matrix.table", env={"PYTHONPATH": str(ROOT / "tools")})


@nox.session(python=False)
def series(session: nox.Session) -> None:
    """Judge patches/solo-learn-main: upstream's tests, style and documentation, and its scripts."""
    checkout(session)
    which = "test_series or plugin or in-tree"
    session.run(
        HERE / "pytest", *RUNS, "tools/matrix/test_series.py", "-k", which, *session.posargs
    )
