"""CSV lists: their columns in any spelling, and the files and labels that they name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from solo_ood.data.labels import Labelled, merge_labels
from solo_ood.data.names import normalise_name, split_of
from solo_ood.errors import UserError
from solo_ood.files.text import user_path

SUFFIXES = (".csv", ".tsv")


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV with a header, each with its line; ``columns`` have values in all.

    Names of columns count in any case; fields are separated by comma, semicolon or tab; blanks
    around values, and rows without any value, are left out.

    Raises:
        UserError: for a file that is no CSV in UTF-8, has no rows, lacks a column or a value, has a
            column twice, or more values in a row than columns.
    """
    head, *body = _filled_lines(path, columns) or [(0, [])]
    names = [name.lower() for name in head[1]]
    _check_header(path.name, head[1], len(body), columns)
    too_long = [number for number, line in body if any(line[len(names) :])]
    if too_long:
        raise UserError(
            f"{path.name}",
            expected=f"{len(names)} values in a row, as in its header",
            got=f"more of them in line {too_long[0]} (and {len(too_long) - 1} more)",
            remedy='Put values that hold a separator into quotes: "a, b".',
        )
    rows = [(number, dict(zip(names, line))) for number, line in body]
    incomplete = [number for number, row in rows if not all(row.get(column) for column in columns)]
    if incomplete:
        raise UserError(
            f"{path.name}",
            expected=f"{', '.join(columns)} in every row",
            got=f"not all of them in line {incomplete[0]} (and {len(incomplete) - 1} more)",
            remedy="Fill or remove these lines.",
        )
    return rows


def _filled_lines(path: Path, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return the values of every line that has any, the header's first, each with its number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel begins with a mark
            written = (line for line in file if line.strip())
            first = next(written, "")
            skipped = int(first.lower().startswith("sep="))  # of Excel, too
            if skipped:
                first = next(written, "")
            delimiter = _delimiter(first, columns)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, [value.strip() for value in line]) for line in reader]
        if any("\0" in value for _, line in lines for value in line):  # no system has them in paths
            raise csv.Error("NUL characters: another encoding, such as UTF-16?")
    except OSError as error:
        raise UserError(
            str(path),
            expected="a CSV",
            got=str(error),
            remedy="Check its spelling, and that you may read the file.",
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        long = "field limit" in str(error)
        remedy = "Close all quotes that are opened." if long else "Save it as UTF-8."
        raise UserError(
            path.name, expected="a CSV in UTF-8", got=str(error), remedy=remedy
        ) from error
    return [(number, line) for number, line in lines if any(line)][skipped:]


def _check_header(file: str, header: Sequence[str], rows: int, columns: Sequence[str]) -> None:
    """Raise ``UserError`` unless the header has each of the columns once, and there are rows."""
    names = [name.lower() for name in header]
    twice = [name for name in (*columns, "split") if names.count(name) > 1]
    if twice:
        raise UserError(
            file,
            expected="each column once in the header",
            got=f"{names.count(twice[0])} columns {twice[0]}",
            remedy="Give the others another name, or leave them out.",
        )
    if not set(names).issuperset(columns) or not rows:
        raise UserError(
            file,
            expected=f"a header with the columns {', '.join(columns)}, and one row or more",
            got=f"{rows} rows with the columns {sorted(header)}",
            remedy=f"Write `{','.join(columns)}` into its first line.",
        )


def _delimiter(header: str, columns: Sequence[str]) -> str:
    """Return the separator by which the header has the most of these columns."""

    def found(mark: str) -> int:
        names = next(csv.reader([header], delimiter=mark), [])
        return len({name.strip().lower() for name in names} & set(columns))

    return max(",;\t", key=found)


def read_list(path: Path) -> tuple[Labelled, Labelled | None, list[str]]:
    """Return the files of a CSV of ``path,label[,split]`` to fit on, those to test on, and notes.

    Relative paths count from the folder of the CSV.

    Raises:
        UserError: see ``read_csv``; for another value in the column ``split``.
    """
    rows = [row for _, row in read_csv(path, ("path", "label"))]
    named = [(path.parent / user_path(row["path"]), row["label"]) for row in rows]
    pictures = len(merge_labels(named).paths)
    notes = []
    if pictures < len(rows):
        notes.append(f"{len(rows)} rows name {pictures} pictures; their labels were joined")
    if "split" not in rows[0] or not any(row.get("split") for row in rows):
        return merge_labels(named), None, notes
    kinds = [split_of(row.get("split") or "") for row in rows]
    if None in kinds or all(kind and kind[0] == "test" for kind in kinds):
        raise UserError(
            f"{path.name}, column split",
            expected="train (in at least one row) and val or test, or other names of splits",
            got=sorted({str(row.get("split") or None) for row in rows}),
            remedy="Use these names, or leave the column out.",
        )
    chosen: dict[str, list[tuple[Path, str]]] = {"fit": [], "test": []}
    spelled: dict[str, dict[str, None]] = {"fit": {}, "test": {}}
    for one, row, kind in zip(named, rows, kinds):
        assert kind is not None  # refused above
        chosen[kind[0]].append(one)
        spelled[kind[0]][normalise_name(row["split"]).casefold()] = None
    for verb, kind_name in (("fitted", "fit"), ("tested", "test")):
        if len(spelled[kind_name]) > 1:
            notes.append(f"{' and '.join(spelled[kind_name])} rows are {verb} on together")
    return (
        merge_labels(chosen["fit"]),
        merge_labels(chosen["test"]) if chosen["test"] else None,
        notes,
    )
