"""CSV lists in any spelling; one picture of several rows; pictures in both splits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from solo_ood.data.images import Split, long_tailed, read_splits
from solo_ood.data.labels import file_key
from solo_ood.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five pictures in `pictures`, and links to two of them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in "abcde":
        Image.new("RGB", (8, 6)).save(pictures / f"{name}.jpg")
    (pictures / "soft.jpg").symlink_to("a.jpg")
    os.link(pictures / "b.jpg", pictures / "hard.jpg")
    (tmp_path / "also").symlink_to(pictures)
    return tmp_path


def read(folder: Path, *lines: str, mark: str = ",", head: str = "path,label", **kwargs):
    text = "\n".join([head, *lines]).replace(",", mark)
    (folder / "list.csv").write_text(text, encoding=kwargs.pop("encoding", "utf-8"))
    return read_splits(folder / "list.csv", **kwargs)


def labels(split: Split) -> dict[str, set[str]]:
    return {
        path.stem: {split.classes[c] for c in np.flatnonzero(row)}
        for path, row in zip(split.paths, split.shares)
    }


@pytest.mark.parametrize(
    "other",
    [
        "./pictures/a.jpg",
        "pictures/../pictures/a.jpg",
        "pictures/soft.jpg",
        "also/a.jpg",
        "ABSOLUTE",
    ],
)
def test_rows_of_one_file_are_one_picture_with_all_labels(data, other):
    other = other.replace("ABSOLUTE", str(data / "pictures" / "a.jpg"))
    rows = ["pictures/a.jpg,car", "pictures/c.jpg,car", f"{other},rider", "pictures/a.jpg,car"]
    fit, test = read(data, *rows)
    assert labels(fit) == {"a": {"car", "rider"}, "c": {"car"}} and test is None
    assert fit.notes == ("4 rows name 2 pictures; their labels were joined",)
    assert fit.several_labels.tolist() == [True, False] and fit.images_of.tolist() == [2, 1]


def test_hard_links_are_one_picture_and_names_in_other_case_are_not(data):
    fit, _ = read(data, "pictures/b.jpg,car", "pictures/hard.jpg,rider")
    assert labels(fit) == {"b": {"car", "rider"}}
    assert file_key(data / "no.jpg") != file_key(data / "NO.jpg")
    assert file_key(data / "no.jpg") == file_key(data / "also" / ".." / "no.jpg")


def test_a_row_a_picture_says_nothing(data):
    fit, _ = read(data, "pictures/a.jpg,car", "pictures/c.jpg,rider")
    assert fit.notes == ()


def test_a_picture_in_both_splits_is_refused_with_names_and_what_was_joined(data):
    rows = ["pictures/a.jpg,car,train", "pictures/a.jpg,van,train", "pictures/c.jpg,car,train"]
    rows += ["pictures/soft.jpg,car,val", "./pictures/c.jpg,car,val", "pictures/d.jpg,car,val"]
    head = "path,label,split"
    with pytest.raises(UserError, match=r"2 of 3 .*fit split, too \(soft.jpg, c.jpg\); 6 rows nam"):
        read(data, *rows, head=head)
    fit, test = read(data, *rows, head=head, cross_fit=True)
    assert len(fit) == 2 and test is None


@pytest.mark.parametrize(
    ("fit_name", "test_name"),
    [("Train", "VALID"), ("training", "validation"), (" fit ", "test"), ("trainset", "dev")],
)
def test_splits_have_their_usual_names_in_any_case(data, fit_name, test_name):
    rows = [f"pictures/a.jpg,car,{fit_name}", f"pictures/b.jpg,car,{test_name}"]
    fit, test = read(data, *rows, head="path,label,split")
    assert list(labels(fit)) == ["a"] and list(labels(test)) == ["b"]


def test_several_test_splits_are_noted(data):
    rows = [f"pictures/{n}.jpg,car,{s}" for n, s in zip("abc", ("train", "Val", "test"))]
    fit, test = read(data, *rows, head="path,label,split")
    assert list(labels(test)) == ["b", "c"] and fit.notes == (
        "val and test rows are tested on together",
    )


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["path,label", "Path,LABEL", " path , label "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists_of_other_programs_are_read(data, mark, head, encoding):
    rows = [
        "pictures/a.jpg,cyclist ",
        "pictures/b.jpg, cyclist",
        "pictures/c.jpg,car",
        "",
        ",",
        " ",
    ]
    fit, _ = read(data, *rows, mark=mark, head=head, encoding=encoding)
    assert fit.classes == ("car", "cyclist") and len(fit) == 3 and fit.notes == ()


def test_quoted_separators_unicode_forms_and_the_line_of_excel(data):
    rows = ['pictures/a.jpg,"car, red"', "pictures/b.jpg,caf\u00e9", "pictures/c.jpg,cafe\u0301"]
    (data / "list.csv").write_text("\n".join(["sep=,", "path,label", *rows]), encoding="utf-8-sig")
    fit, _ = read_splits(data / "list.csv")
    assert fit.classes == ("caf\u00e9", "car, red") and len(fit) == 3


def test_an_unquoted_separator_is_an_error_and_not_cut_off(data):
    with pytest.raises(UserError, match="2 values in a row.* line 3 .*quotes"):
        read(data, "pictures/a.jpg,car", "pictures/b.jpg,car, red")


@pytest.mark.parametrize("start", ["\n", "\n  \n", "sep=;\n\n", "\nsep=;\n"])
def test_blank_lines_before_the_header_hide_no_separator(data, start):
    text = "path;label\npictures/a.jpg;car, red\npictures/b.jpg;car"
    (data / "list.csv").write_text(start + text)
    assert read_splits(data / "list.csv")[0].classes == ("car", "car, red")


@pytest.mark.parametrize(
    ("head", "row", "error"),
    [
        ("path,label", "pictures/a\0.jpg,car", "NUL.*Save it as UTF-8"),
        ("path,label,Label", "pictures/a.jpg,car,van", "each column once .* got 2 columns label"),
        ("path,label,split,split", "pictures/a.jpg,car,train,val", "got 2 columns split"),
        ("path,label", f'pictures/a.jpg,"{"x" * 140_000}', "field limit .*Close all quotes"),
    ],
)
def test_lists_that_cannot_be_meant_are_one_line(data, head, row, error):
    with pytest.raises(UserError, match=f"list.csv: expected .*{error}") as one:
        read(data, row, head=head)
    assert "\n" not in str(one.value)


def test_labels_that_differ_in_case_are_different_and_said(data):
    fit, _ = read(data, "pictures/a.jpg,Car", "pictures/b.jpg,car")
    assert fit.notes == ("Car and car are taken for different classes",)


def test_pictures_with_several_labels_have_no_long_tail(data):
    fit, _ = read(data, "pictures/a.jpg,car", "pictures/a.jpg,van", "pictures/b.jpg,car")
    with pytest.raises(UserError, match="one label each, got 1 of 2 with several"):
        long_tailed(fit, 10, 0)
