"""Which folder of the package may import which, and which of them may know which library."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = next(path for path in Path(__file__).resolve().parents if (path / "pyproject.toml").exists())

# From top to bottom: each imports only those below it, and those on one line not each other.
LAYERS = """
__main__
cli
study explore
benchmark mining stream training
runs
evaluation
detection
embedding
host
pages
data
options
files
console
replay
selection
settings
errors
""".split("\n")[1:-1]
LEVELS = {room: level for level, line in enumerate(LAYERS) for room in line.split()}
OFFERED = ["replay", "selection", "settings", "errors"]  # to solo-learn, see patches/README.md
MAY_IMPORT = {
    "solo": {"host", "training"},
    "hydra": {"training"},
    "lightning": {"embedding", "study", "training"},
}


def imports(package: Path) -> Iterator[tuple[str, str]]:
    """Every import that is executed, also those in functions: file and dotted name."""
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(tree):
            name = path.relative_to(package).as_posix()
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node not in for_types:
                assert node.level == 0, f"{name}: a relative import"
                yield from ((name, f"{node.module}.{alias.name}") for alias in node.names)


def violations(package: Path) -> list[str]:
    """Imports that the layers or the libraries' lists do not allow."""
    found = []
    for file, imported in imports(package):
        room = file.partition("/")[0].removesuffix(".py")
        library, _, rest = imported.partition(".")
        allowed = True
        if library == package.name:
            target = rest.partition(".")[0]
            if target in rooms(package):
                allowed = room == target or LEVELS.get(room, 99) < LEVELS.get(target, 99)
        elif library in MAY_IMPORT:
            allowed = room in MAY_IMPORT[library]
        if not allowed:
            found.append(f"{file} imports {imported}")
    return found


def rooms(package: Path) -> set[str]:
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    return folders | {path.stem for path in package.glob("*.py")}


def test_imports_run_one_way_from_folder_to_folder():
    assert violations(ROOT / "solo_ood") == []


def test_every_folder_has_a_place_among_the_layers():
    assert rooms(ROOT / "solo_ood") - {"__init__"} == LEVELS.keys()


def test_what_solo_learn_is_offered_imports_only_itself():
    """It is the bottom, so that nothing else is below it."""
    assert [room for line in LAYERS[-len(OFFERED) :] for room in line.split()] == OFFERED
    assert not set(OFFERED) & set().union(*MAY_IMPORT.values())


def test_an_import_against_the_layers_is_found(tmp_path):
    package = shutil.copytree(ROOT / "solo_ood", tmp_path / "solo_ood")
    with (package / "selection/ring.py").open("a") as file:
        file.write(
            "\ndef late():\n    import lightning.pytorch\n    from solo_ood import console\n"
        )
    with (package / "training/callbacks.py").open("a") as file:
        file.write("\nfrom solo_ood.benchmark import table\nfrom solo_ood.cli import main\n")
    assert set(violations(package)) == {
        "selection/ring.py imports lightning.pytorch",
        "selection/ring.py imports solo_ood.console",
        "training/callbacks.py imports solo_ood.benchmark.table",
        "training/callbacks.py imports solo_ood.cli.main",
    }


def test_modules_at_the_top_are_few():
    at_top = sorted(path.stem for path in (ROOT / "solo_ood").glob("*.py"))
    assert at_top == ["__init__", "__main__", "cli", "console", "errors"]


def test_every_folder_says_what_it_is_about_in_one_line():
    for path in (ROOT / "solo_ood").rglob("__init__.py"):
        first, *_ = path.read_text().splitlines()
        assert first.startswith('"""') and len(first) > 30, path
