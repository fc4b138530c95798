"""Unlabelled images from folders and lists, and which clip each is from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from solo_ood.data.clips import NUMBERED
from solo_ood.data.frames import read_frames
from solo_ood.errors import UserError


def images(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "grey").save(path)
    return root


def names(frames) -> list[str]:
    return [frames.name(path) for path in frames.paths]


def test_a_flat_folder_is_read_in_the_order_in_which_a_person_counts(tmp_path):
    frames = read_frames(images(tmp_path, "f_10.png", "f_2.png", "f_1.jpg"))
    assert names(frames) == ["f_1.jpg", "f_2.png", "f_10.png"]
    assert set(frames.clips) == {""} and "--clip-pattern" in frames.notes[-1]


def test_a_tree_of_any_depth_is_read_and_its_folders_are_clips(tmp_path):
    frames = read_frames(images(tmp_path, "a/b/c/1.png", "a/b/2.png", "d/3.png", "4.png"))
    assert sorted(zip(names(frames), frames.clips)) == [
        *(("4.png", "."), ("a/b/2.png", "a/b"), ("a/b/c/1.png", "a/b/c"), ("d/3.png", "d")),
    ]


def test_bdd100k_is_read_without_its_masks_and_an_image_there_is_a_clip_of_its_own(tmp_path):
    images(tmp_path, "images/10k/train/1.jpg", "images/10k/val/2.jpg")
    images(tmp_path, "labels/sem_seg/masks/train/1.png")
    frames = read_frames(tmp_path)
    assert names(frames) == ["images/10k/train/1.jpg", "images/10k/val/2.jpg"]
    assert set(frames.clips) == {""}


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "parquet"])
def test_lists_keep_their_order_and_count_from_their_folder(tmp_path, kind):
    images(tmp_path / "x", "b.png", "a.png")
    path = tmp_path / f"list.{kind}"
    listed = ["x/b.png", str(tmp_path / "x/a.png"), "x/gone.png"]
    if kind == "txt":
        path.write_text("\n".join(listed) + "\n\n")
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"Path": listed, "clip": ["p", None, "p"]})
        pyarrow.parquet.write_table(table, path)
    else:
        mark = "\t" if kind == "tsv" else ","
        rows = zip(listed, ("p", "", "p"))
        path.write_text("\n".join([f"path{mark}clip", *map(mark.join, rows)]))
    frames = read_frames(path)
    assert names(frames) == ["x/b.png", "x/a.png"]
    assert frames.clips == (("", "") if kind == "txt" else ("p", ""))
    assert [item.name for item in frames.missing] == ["gone.png"]
    assert "1 left out, no such file (gone.png)" in frames.notes


def test_names_of_one_file_count_once(tmp_path):
    images(tmp_path, "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "list.txt").write_text("a.png\n./a.png\nlink.png\n")
    frames = read_frames(tmp_path / "list.txt")
    assert len(frames) == 1 and "2 paths name files that are there already" in frames.notes


def test_names_that_are_not_utf_8_are_read_and_shown_with_an_escape(tmp_path):
    images(tmp_path, "a.png")
    os.rename(os.fsencode(tmp_path) + b"/a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    for given in (tmp_path, tmp_path / "list.txt"):
        frames = read_frames(given)
        assert names(frames) == ["caf\\xe9.png"] and frames.paths[0].is_file()


@pytest.mark.parametrize(
    ("pattern", "clips"),
    [(r"^(\w+?)_", ["A1", "A1", "B"]), (r"^[A-Z]", ["A", "A", "B"]), (NUMBERED, ["A1", "A1", "B"])],
)
def test_clips_are_what_a_pattern_finds_in_the_names(tmp_path, pattern, clips):
    images(tmp_path, "val/B_3.png", "train/A1_1.png", "train/A1_2.png")
    frames = read_frames(tmp_path, pattern)
    assert list(frames.clips) == clips


def test_names_without_a_clip_are_counted(tmp_path):
    frames = read_frames(images(tmp_path, "A_1.png", "x.png"), r"(\w+)_\d")
    assert frames.clips == ("A", "")
    assert "1 images fit no clip: each counts by itself" in frames.notes


@pytest.mark.parametrize(
    ("make", "pattern", "said"),
    [
        (lambda root: root, None, "images, such as .jpg and .png, .*got none among 0 files"),
        (lambda root: (root / "a.heic").touch() or root, None, r"none among 1 files \(\.heic\)"),
        (lambda root: root / "none", None, "got no file or folder"),
        (lambda root: (root / "a.doc").touch() or root / "a.doc", None, "a file of another kind"),
        (lambda root: (root / "l.txt").touch() or root / "l.txt", None, "are there, got no path"),
        (lambda root: images(root, "a.png"), "(", "expected a regular expression, got missing"),
        (lambda root: images(root, "a.png"), "z", "got none of 1, such as a"),
    ],
)
def test_what_holds_no_images_is_one_clear_error(tmp_path, make, pattern, said):
    with pytest.raises(UserError, match=said):
        read_frames(make(tmp_path), pattern)


def test_a_list_of_files_that_are_all_gone_names_the_first(tmp_path):
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    with pytest.raises(UserError, match=r"got none of 2 files, the first .*a\.png"):
        read_frames(tmp_path / "list.txt")


def test_masks_beside_pictures_are_no_frames(tmp_path):
    images(tmp_path, "images/a.png", "images/b.png", "Masks/a.png", "gt/b.png")
    frames = read_frames(tmp_path)
    assert names(frames) == ["images/a.png", "images/b.png"]
    assert "2 images left out in Masks, gt: by name the labels of others" in frames.notes
    images(tmp_path / "other", "gt/a.png", "b.png")  # no folder of images beside
    assert len(read_frames(tmp_path / "other")) == 2
    assert len(read_frames(tmp_path / "Masks")) == 1  # asked for


def test_a_folder_of_ours_within_the_data_is_left_out(tmp_path):
    images(tmp_path, "a.png", "rank/contact-sheet.jpg")
    for name in ("ranking.csv", "ranking.json"):
        (tmp_path / "rank" / name).touch()
    assert names(read_frames(tmp_path)) == ["a.png"]
