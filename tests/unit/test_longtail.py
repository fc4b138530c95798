"""A long-tailed training set and a balanced reference, cut out of a balanced ImageFolder."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from PIL import Image

from solo_ood.cli import main
from solo_ood.data import longtail as module
from solo_ood.data.longtail import longtail, make_longtail
from solo_ood.data.options import LongtailOptions
from solo_ood.errors import UserError


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("balanced")
    for label in ("ant", "bee", "cat", "dog"):
        (folder / label).mkdir()
        for i in range(30):
            Image.new("L", (4, 4), i).save(folder / label / f"{i:02d}.png")
    return folder


def counts(folder):
    return {entry.name: len(list(entry.iterdir())) for entry in folder.iterdir()}


def images(folder):
    return {path.resolve() for path in folder.glob("*/*")}


def test_train_is_long_tailed_and_shares_no_image_with_the_balanced_reference(balanced, tmp_path):
    order = longtail(balanced, tmp_path / "out", imbalance=8, seed=3, reference=6)
    assert [counts(tmp_path / "out" / "train")[name] for name in order] == [24, 12, 6, 3]
    assert counts(tmp_path / "out" / "reference") == dict.fromkeys(order, 6)
    train, reference = images(tmp_path / "out" / "train"), images(tmp_path / "out" / "reference")
    assert not train & reference and train | reference <= images(balanced)
    assert sorted(order) == ["ant", "bee", "cat", "dog"]


def test_a_seed_draws_the_order_of_the_classes_and_the_images(balanced, tmp_path):
    drawn = {}
    for name, seed in (("a", 0), ("again", 0), ("b", 1), ("c", 2)):
        order = longtail(balanced, tmp_path / name, imbalance=5, seed=seed)
        drawn[name] = order, images(tmp_path / name / "train")
    assert drawn["a"] == drawn["again"]
    assert len({tuple(order) for order, _ in drawn.values()}) > 1
    assert drawn["a"][1] != drawn["b"][1] != drawn["c"][1]


@pytest.mark.parametrize(
    "settings", [{"reference": 30}, {"reference": 10, "largest": 21}, {"imbalance": 0.5}]
)
def test_impossible_requests_are_refused_and_leave_nothing(settings, balanced, tmp_path):
    with pytest.raises(UserError, match="expected"):
        longtail(balanced, tmp_path / "out", **{"imbalance": 2, "seed": 0, **settings})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folders", "error"),
    [
        (
            ["TRAIN/a", "TRAIN/b", "Validation/a"],
            "every folder is taken for a class, .* Give .*/TR",
        ),
        (["a", "b", ".git/x"], "SRC: .* got .git in"),
        (["a", "b", "__MACOSX"], "SRC: .* got __MACOSX in"),
        (["a", "b", "masks"], "SRC: .* got masks, by name a part of another layout"),
        (["a", "b", "a/masks"], "SRC: .* got a/masks, by name the labels of pictures"),
    ],
)
def test_folders_that_are_no_classes_are_refused(folders, error, tmp_path):
    for folder in folders:
        (tmp_path / "source" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / "source" / folder / "a.png")
    with pytest.raises(UserError, match=error):
        longtail(tmp_path / "source", tmp_path / "out", imbalance=1, seed=0)
    assert not (tmp_path / "out").exists()


def test_a_link_to_nothing_is_refused(balanced, tmp_path):
    source = shutil.copytree(balanced, tmp_path / "source")
    for path in (source / "ant").iterdir():
        path.unlink()
        path.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="got 30 folders, or links to what is not there"):
        longtail(source, tmp_path / "out", imbalance=1, seed=0)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_never_written_into(balanced, tmp_path):
    (tmp_path / "out").mkdir()
    longtail(balanced, tmp_path / "out", imbalance=2, seed=0)  # an empty one is
    before = sorted((tmp_path / "out").rglob("*"))
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name in ("out", "nowhere"):
        with pytest.raises(UserError, match="expected a folder that does not exist yet, or is emp"):
            longtail(balanced, tmp_path / name, imbalance=2, seed=1)
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nowhere", "out"]


def test_the_command_prints_the_counts_and_writes_them_beside(balanced, tmp_path, capsys):
    out = tmp_path / "out"
    main(["data", "longtail", str(balanced), str(out), "--imbalance", "8", "--seed", "3",
          "--reference", "6"])  # fmt: skip
    manifest = json.loads((out / "longtail.json").read_text())
    order = longtail(balanced, tmp_path / "same", imbalance=8, seed=3, reference=6)
    assert manifest["order"] == order and manifest["seed"] == 3
    assert manifest["counts"] == counts(out / "train") == dict(zip(order, [24, 12, 6, 3]))
    assert images(out / "train") == images(tmp_path / "same/train")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "source", "train", "reference"]
    assert [line.split() for line in lines[1:6]] == [
        *([name, "30", str(n), "6"] for name, n in zip(order, [24, 12, 6, 3])),
        ["all", "120", "45", "24"],
    ]
    assert "imbalance 8 of 8" in lines and f"written: {out}" in lines
    with pytest.raises(SystemExit, match="Error: Unknown command: .*'data'"):
        main(["data"])


def test_the_order_of_the_classes_is_a_choice(balanced, tmp_path):
    source = shutil.copytree(balanced, tmp_path / "source")
    for label, n in (("ant", 5), ("bee", 20), ("dog", 12)):
        for path in sorted((source / label).iterdir())[n:]:
            path.unlink()
    (source / "ant/notes.txt").touch()

    def made(*order, **settings):
        given = {"imbalance": 4, "seed": 1, "order": order, **settings}
        out = tmp_path / f"{order} {settings}"
        return make_longtail(LongtailOptions(source, out, **given), lambda text: None)["counts"]

    # As many as the source allows: 5 of the last, at a quarter of the first.
    assert made("size") == {"cat": 20, "bee": 13, "dog": 8, "ant": 5}
    assert list(made("name")) == ["ant", "bee", "cat", "dog"] and made("name", imbalance=1)
    assert list(made("dog", "ant", "cat", "bee")) == ["dog", "ant", "cat", "bee"]
    for wrong, message in (
        (("dog", "ant", "cat", "bea"), "Unknown class in --order: .*Did you mean 'bee'"),
        (("dog", "ant", "cat"), "--order: expected .*got a list without bee"),
        (("dog", "ant", "cat", "bee", "bee"), "got a class twice"),
    ):
        with pytest.raises(UserError, match=message):
            made(*wrong)


@pytest.mark.parametrize("links", ["absolute", "relative"])
def test_links_lead_to_the_images_and_relative_ones_move_with_them(links, balanced, tmp_path):
    source = shutil.copytree(balanced, tmp_path / "all/source")
    (tmp_path / "all/link").symlink_to(source)
    given = LongtailOptions(
        tmp_path / "all/link", tmp_path / "all/deep/out", 3, order=("name",), links=links
    )
    make_longtail(given, lambda text: None)
    link = next((tmp_path / "all/deep/out/train/ant").iterdir())
    assert os.path.isabs(os.readlink(link)) == (links == "absolute")
    assert images(tmp_path / "all/deep/out/train") <= images(source)
    (tmp_path / "all").rename(tmp_path / "moved")
    assert (tmp_path / "moved/deep/out/train/ant" / link.name).is_file() == (links == "relative")


def test_where_links_are_impossible_images_are_copied(balanced, tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError("no links here")

    monkeypatch.setattr(module.Path, "symlink_to", refuse)
    given = {"source": balanced, "out": tmp_path / "out", "imbalance": 3}
    with pytest.raises(UserError, match="got no links here. Copy the images: --copy"):
        make_longtail(LongtailOptions(**given), lambda text: None)
    assert not list(tmp_path.iterdir())  # nothing half written
    make_longtail(LongtailOptions(**given, copy=True), lambda text: None)
    copies = list((tmp_path / "out/train").glob("*/*"))
    assert copies and not any(path.is_symlink() for path in copies)
    assert (
        copies[0].read_bytes() == (balanced / copies[0].parent.name / copies[0].name).read_bytes()
    )


def test_images_of_one_name_in_subfolders_of_a_class_keep_apart(balanced, tmp_path):
    source = shutil.copytree(balanced, tmp_path / "source")
    for part in ("a", "b"):
        shutil.copytree(balanced / "ant", source / "ant" / part)
    for name in ("bee", "cat", "dog"):
        shutil.copytree(balanced / name, source / name / "a")
    order = ["ant", "bee", "cat", "dog"]
    given = LongtailOptions(source, tmp_path / "out", 1.5, order=tuple(order))
    assert make_longtail(given, lambda text: None)["counts"] == counts(tmp_path / "out/train")
    assert counts(tmp_path / "out/train")["ant"] == 68  # 60 of the next class
