"""What README, CONTRIBUTING and docs/ name is there: settings, defaults, commands, files, tests."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from solo_ood.settings.schema import OODConfig, parse

ROOT = next(
    path for path in Path(__file__).resolve().parents if (path / "pyproject.toml").is_file()
)
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
SOLO_OOD = Path(sys.executable).parent / "solo-ood"
# Paths below these folders of the repository; RUN/x, demo/x and the like are a user's own.
FOLDERS = "solo_ood|configs|scripts|tools|studies|tests|patches|docs|hydra_plugins"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def defaults(cfg: Any = None, prefix: str = "") -> dict[str, str]:
    """Return every setting's default as YAML writes it, by its key."""
    cfg, found = cfg or OODConfig(), {}
    for field in fields(cfg):
        value = getattr(cfg, field.name)
        if is_dataclass(value):
            found |= defaults(value, f"{field.name}.")
        else:
            found[prefix + field.name] = json.dumps(value).strip('"')
    return found


def settings_in(page: Path) -> dict[str, str]:
    """Return the defaults in the table of settings of a page, by key."""
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", page.read_text(), flags=re.M)
    return dict(rows)


def test_the_page_of_settings_has_every_key_with_its_default():
    assert settings_in(DOCS / "settings.md") == defaults()


def test_the_ten_settings_of_the_readme_have_their_defaults():
    shown = settings_in(ROOT / "README.md")
    assert len(shown) == 10
    assert shown.items() <= defaults().items()


def test_the_readme_has_at_most_200_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@cache
def help_of(*command: str) -> str:
    call = [SOLO_OOD, *command, "--help"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_their_options_exist(page):
    """Of every line ``solo-ood VERB ...``, and of ``--option`` in the page of a verb."""
    lines = page.read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        for verb, rest in re.findall(r"^solo-ood (data \w+|\w+)(.*)", line):
            for option in re.findall(r"(?<!\S)(--[a-z][a-z-]*)", rest.split("#")[0]):
                assert option in help_of(*verb.split()), line


@pytest.mark.parametrize(
    ("verb", "page"),
    [("measure", "measure"), ("evaluate", "evaluate"), ("rank", "find-rare-frames")],
)
def test_options_named_in_the_page_of_a_verb_are_its_own(verb, page):
    text = re.sub(r"```.*?```", "", (DOCS / f"{page}.md").read_text(), flags=re.S)
    # In a row of solo-learn's own programs, options are theirs.
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    known = help_of(verb) + help_of("export") + help_of("explore") * (verb == "rank")
    for option in re.findall(r"`(--[a-z][a-z-]*)", prose):
        assert option in known, option


def runs_in(page: Path) -> list[tuple[str, list[str]]]:
    """Return the config and the overrides of every pre-training that a page shows."""
    text = page.read_text().replace("\\\n", " ")
    shown = re.findall(r"main_pretrain\.py --config-name (\w+)([^\n`]*)", text)
    # The README's table of what to add to the first command.
    _, _, table = text.partition("| you want to | add |\n|---|---|\n")
    spans = re.findall(r"`([^`]+)`", table.partition("\n\n")[0])
    shown += [("dino_ood", span) for span in spans if "=" in span]
    split = [(config, shlex.split(rest.split("  #")[0])) for config, rest in shown]
    return [(config, [word for word in words if word != "..."]) for config, words in split]


@pytest.mark.parametrize("page", [page for page in PAGES if runs_in(page)], ids=name_of)
def test_overrides_of_the_runs_that_are_shown_compose(page, registered):
    for config, overrides in runs_in(page):
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.2"):
            cfg = compose(config, overrides)
        parse(cfg.method_kwargs.ood, cfg.optimizer.batch_size)


def test_the_pages_show_runs():
    assert len([run for page in PAGES for run in runs_in(page)]) > 10


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), flags=re.M)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    named = re.findall(rf"(?:`|^python )((?:{FOLDERS})/[\w./-]*)", page.read_text(), flags=re.M)
    assert [path for path in named if not (ROOT / path).exists()] == []


def source_of(path: str) -> str:
    """Return the source of a test file or of all in a folder, in which ``-k`` looks for names."""
    files = (ROOT / path).rglob("*.py") if (ROOT / path).is_dir() else [ROOT / path]
    return "\n".join(file.read_text() for file in files)


def test_rows_of_the_page_of_faults_name_tests_that_exist():
    """The words of ``-k`` are parts of the names of tests in the file that the section names."""
    current, n = "", 0
    for line in (DOCS / "reliability.md").read_text().splitlines():
        heading = re.match(r"`pytest (tests\S*) -k …`", line)
        if heading:
            current = heading[1]
        paths = re.findall(r"tests/\w[\w/]*\.py", line)
        for path in paths:
            assert (ROOT / path).is_file(), line
        last = line.strip(" |").rsplit("|", 1)[-1].strip() if line.startswith("| ") else ""
        own = re.search(r"pytest (tests/\S+\.py) -k (\w+)", last)
        words = re.fullmatch(r'`"?([\w ]+)"?`', last)
        if own:
            asked, wanted = own[1], own[2]
        elif words and current:
            asked, wanted = current, words[1]
        else:
            continue
        functions = " ".join(re.findall(r"def (test_\w+)", source_of(asked)))
        for word in wanted.split(" or "):
            assert word in functions, line
            n += 1
    assert n > 20


def python_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_imports_that_are_shown_work(page):
    shown = re.findall(r"^from (solo_ood[\w.]*) import (.+)$", "\n".join(python_of(page)), re.M)
    for module, names in shown:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), (module, name)


def test_the_parts_work_alone_as_the_page_of_the_design_shows(capsys):
    (code,) = python_of(DOCS / "design.md")
    exec(compile(code, "design.md", "exec"), {})
    assert capsys.readouterr().out == code.rpartition("# ")[2]
