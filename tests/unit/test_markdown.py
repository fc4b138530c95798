"""Tables in Markdown keep their columns, whatever stands in a cell; one module writes them all."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from repository import ROOT

from solo_ood.pages import markdown


def parsed(text: str) -> list[list[str]]:
    """The cells of a table as a Markdown parser reads them, without inline markup."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows: list[list[str]] = []
    for before, token in zip(tokens, tokens[1:]):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("th_open", "td_open"):
            rows[-1].append("".join(part.content for part in token.children or []))
    return rows


def test_a_table_has_a_head_a_rule_and_a_line_for_each_row():
    text = markdown.table(["a", "b"], [("x", 1), ("y", 2.5)])
    assert text.splitlines() == ["| a | b |", "|---|---|", "| x | 1 |", "| y | 2.5 |"]
    assert markdown.head(["a", "b"]) == "| a | b |\n|---|---|"


@pytest.mark.parametrize("cell", ["a|b", "|", r"a\|b", r"a\\|b", "a||b", r"\x\|", "line\nbreak"])
def test_no_cell_ends_before_its_text_does(cell):
    rows = parsed(markdown.table(["one", "two"], [(cell, "last")]))
    assert rows == [["one", "two"], [cell.replace("\n", r"\n"), "last"]]


@given(st.lists(st.text("ab|\\ \n", min_size=1), min_size=2, max_size=4))
def test_any_row_has_as_many_cells_as_were_given(cells):
    rows = parsed(markdown.table(["head"] * len(cells), [[f"x{cell}x" for cell in cells]]))
    assert [len(row) for row in rows] == [len(cells)] * 2


def test_only_one_module_writes_markdown_tables():
    own = ROOT / "solo_ood/pages/markdown.py"
    writers = re.compile(r"""["']\| |\|---|\| ---""")  # a text that begins as a row does
    files = [
        path
        for folder in ("solo_ood", "scripts", "tools", "studies")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert own in files
    assert [path for path in files if writers.search(path.read_text())] == [own]
