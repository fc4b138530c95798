"""The rows of the table: which solo-learn, with or without this package, in which environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """One row of the table.

    Attributes:
        key: its name in pytest's `-k` and in the results.
        label: its name in the table.
        environment: the nox session that runs it.
        tree: of solo-learn's main branch, a key of ``trees.TREES``; None for the release, which is
            installed in the environment and has this project's scripts.
        package: whether this package is there; if not, the method is solo-learn's own.
        launcher: whether k-NN and UMAP are run by ``python -m solo_ood``.
        note: what a reader has to know of the row.
    """

    key: str
    label: str
    environment: str = "today"
    tree: str | None = None
    package: bool = True
    launcher: bool = False
    note: str | None = None


OLD_LIGHTNING = "`setuptools<81` is needed beside them: Lightning 2.1 imports `pkg_resources`"
HOSTS = (
    Host("release", "solo-learn 1.0.2 + patches"),
    Host(
        "lowest",
        "solo-learn 1.0.2 + patches, our lowest versions",
        environment="lowest",
        note=OLD_LIGHTNING,
    ),
    Host(
        "pins",
        "main, its own pins",
        environment="pins",
        tree="main",
        launcher=True,
        note=OLD_LIGHTNING,
    ),
    Host("today", "main, today's versions", tree="main", launcher=True),
    Host("plugin", "main + our series, plugin", tree="repairs"),
    Host("in-tree", "main + our series, in-tree method", tree="series", package=False),
)
