"""``solo-ood rank`` from end to end on pictures: what it finds, writes, and says of bad input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from solo_ood.cli import main

QUICK = [
    *("--embedder", "resnet18:random", "--image-size", "64", "--num-workers", "0"),
    *("--accelerator", "cpu"),
]
RED = (20, 20, 36, 44)  # left, top, right, bottom of what matters
SOLO_OOD = str(Path(sys.executable).with_name("solo-ood"))


def picture(rare: bool, number: int) -> Image.Image:
    """Noise as of a street at dusk; a rare one has a red block."""
    pixels = np.random.default_rng(number).integers(60, 160, (48, 64, 3), dtype=np.uint8)
    if rare:
        left, top, right, bottom = RED
        pixels[top:bottom, left:right] = (250, 20, 20)
    return Image.fromarray(pixels)


def write(root: Path, n: int = 40, every: int = 5) -> Path:
    root.mkdir(parents=True)
    for number in range(n):
        picture(number % every == 0, number).save(root / f"{number:03d}.png")
    return root


def is_rare(path: str, every: int = 5) -> bool:
    return int(Path(path).stem) % every == 0


def rank(data: Path, *more: str) -> list[dict[str, str]]:
    """Run the command; return the rows of ``ranking.csv``."""
    here = data.parent
    main(["rank", str(data), "--out", f"{here}/out", "--cache", f"{here}/cache", *QUICK, *more])
    with (here / "out" / "ranking.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def chosen(rows: list[dict[str, str]]) -> list[str]:
    return [row["path"] for row in rows if row["state"] == "chosen"]


def boxes(folder: Path, names: list[str], box=RED) -> list[str]:
    lines = [f"{name},{','.join(map(str, box))}" for name in names]
    (folder / "boxes.csv").write_text("\n".join(["path,left,top,right,bottom", *lines]))
    return ["--boxes", str(folder / "boxes.csv")]


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("frames") / "data")


def test_without_labels_every_image_is_listed_once_with_rank_score_and_state(frames, capsys):
    rows = rank(frames, "--top", "6")
    assert sorted(row["path"] for row in rows) == sorted(p.name for p in frames.iterdir())
    ranks = [int(row["rank"]) for row in rows if row["rank"]]
    assert ranks == list(range(1, len(ranks) + 1))
    assert [row["state"] for row in rows].count("chosen") == 6
    scores = [float(row["score"]) for row in rows if row["state"] == "chosen"]
    assert scores == sorted(scores, reverse=True)
    said = capsys.readouterr().out
    assert "6 scenes were chosen by knn" in said and "without labels no score is good" in said
    about = json.loads((frames.parent / "out" / "ranking.json").read_text())
    assert sum(about["counts"].values()) == 40 and about["detector"] == "knn"


def test_exemplars_find_their_like_and_are_left_out_of_the_list(frames):
    rows = rank(frames, "--exemplars", "000.png", "005.png", "--top", "6", "--min-distance", "0")
    assert all(map(is_rare, chosen(rows))) and not {"000.png", "005.png"} & {*chosen(rows)}
    assert {row["path"] for row in rows if row["state"] == "exemplar"} == {"000.png", "005.png"}


def test_exemplars_may_lie_outside_the_data(frames, tmp_path):
    for number in (100, 105):
        picture(True, number).save(tmp_path / f"{number}.png")
    given = [str(tmp_path / f"{number}.png") for number in (100, 105)]
    rows = rank(frames, "--exemplars", *given, "--top", "6", "--min-distance", "0")
    assert all(map(is_rare, chosen(rows))) and len(rows) == 40


def test_boxes_find_regions_and_every_hit_has_its_evidence(frames):
    given = boxes(frames.parent, ["000.png", "005.png", "010.png"])
    rows = rank(frames, *given, "--top", "5", "--min-distance", "0")
    assert len(chosen(rows)) == 5 and all(map(is_rare, chosen(rows)))
    for row in rows[:5]:
        left, top, right, bottom = (float(row[side]) for side in ("left", "top", "right", "bottom"))
        across = min(right, RED[2]) - max(left, RED[0])
        down = min(bottom, RED[3]) - max(top, RED[1])
        assert across > 0 and down > 0 and right <= 64 and bottom <= 48
    page = (frames.parent / "out" / "report.html").read_text()
    assert 'class="mark"' in page and "exemplar-regions" in page


def test_masks_say_what_matters_in_exemplars(tmp_path):
    root = tmp_path / "bdd"
    write(root / "images/10k/train")
    masks = root / "labels/sem_seg/masks/train"
    masks.mkdir(parents=True)
    for number in (0, 5, 10):
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[RED[1] : RED[3], RED[0] : RED[2]] = 11
        Image.fromarray(mask).save(masks / f"{number:03d}.png")
    named = ["--exemplars", "000.png", "005.png", "010.png", "--rare", "person"]
    rows = rank(root, *named, "--top", "5", "--min-distance", "0")
    assert all(map(is_rare, chosen(rows))) and rows[0]["left"] != ""
    with pytest.raises(SystemExit, match="Unknown class in --rare.*Did you mean 'person'"):
        rank(root, *named[:-1], "persn")
    with pytest.raises(SystemExit, match="got no mask of 001.png"):
        rank(root, "--exemplars", "001.png", "--rare", "person")


def test_near_duplicates_stand_behind_one_image_and_the_counts_add_up(tmp_path, capsys):
    data = write(tmp_path / "data", 20)
    for number in range(9):  # nearly the same picture
        pixels = np.asarray(picture(True, 5)).copy()
        pixels[0, number] ^= 1
        Image.fromarray(pixels).save(data / f"005{number}.png")
    rows = rank(data, "--top", "30", "--min-distance", "0.0005")
    leader = next(row for row in rows if row["like"] == "9")
    behind = [row["path"] for row in rows if row["representative"] == leader["path"]]
    assert sorted(behind) == sorted(["005.png", *(f"005{n}.png" for n in range(9))])
    assert len(rows) == 29 and len(chosen(rows)) == 20
    said = capsys.readouterr().out
    assert "29 images: 20 scenes chosen, one image each; 9 like one of these" in said
    assert "only 20 scenes" in said
    assert "+9 like it" in (tmp_path / "out" / "report.html").read_text()


def test_clips_have_so_many_scenes_each(tmp_path):
    data = tmp_path / "data"
    for clip in "abc":
        write(data / clip, 8)
    rows = rank(data, "--per-clip", "2", "--top", "9", "--min-distance", "0")
    clips = [row["clip"] for row in rows if row["state"] == "chosen"]
    assert sorted(clips) == ["a", "a", "b", "b", "c", "c"] and len(rows) == 24
    by_name = rank(data, "--clip-pattern", r"^00(\d)", "--per-clip", "1", "--top", "5")
    assert len({row["clip"] for row in by_name if row["state"] == "chosen"}) == 5


def test_the_same_list_is_written_as_parquet(frames):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = rank(frames, *boxes(frames.parent, ["000.png", "005.png"]), "--top", "3")
    table = parquet.read_table(frames.parent / "out" / "ranking.parquet").to_pylist()
    texts = [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in table
    ]
    assert texts == rows and isinstance(table[0]["score"], float)


def test_links_and_copies_of_the_chosen_images_are_named_by_rank(frames, tmp_path):
    picked = tmp_path / "picked"
    rows = rank(frames, "--top", "3", "--link", str(picked))
    names = [f"{n:04d}-{path}" for n, path in enumerate(chosen(rows), 1)]
    assert sorted(os.listdir(picked)) == names
    assert [(picked / name).resolve().name for name in names] == chosen(rows)
    rank(frames, "--top", "2", "--link", str(picked))  # our own links are replaced
    assert sorted(os.listdir(picked)) == names[:2]
    rank(frames, "--top", "2", "--link", str(tmp_path / "copied"), "--copies")
    assert not any(path.is_symlink() for path in (tmp_path / "copied").iterdir())
    for taken in (tmp_path / "copied", frames / "inside"):
        with pytest.raises(SystemExit, match="--link: expected a new folder, beside the data"):
            rank(frames, "--link", str(taken))


def test_the_file_for_training_names_the_exemplars_of_the_data(frames, tmp_path, capsys):
    path = tmp_path / "rare.txt"
    rank(frames, "--exemplars", "000.png", "005.png", "--for-training", str(path))
    assert path.read_text().split() == [str(frames / "000.png"), str(frames / "005.png")]
    rows = rank(frames, "--top", "4", "--for-training", str(path))
    assert [Path(line).name for line in path.read_text().split()] == chosen(rows)
    assert "which nobody has looked at yet" in capsys.readouterr().out


def test_a_second_call_embeds_nothing_and_originals_are_never_touched(tmp_path, capsys):
    data = write(tmp_path / "data", 20)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in data.iterdir()}
    rank(data, "--keep-patches", "--link", str(tmp_path / "picked"))
    capsys.readouterr()
    rank(data, "--exemplars", "000.png", "--keep-patches", "--link", str(tmp_path / "picked"))
    said = capsys.readouterr().err
    assert "frames:" not in said and "exemplars:" in said
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in data.iterdir()}


def test_an_audit_is_drawn_filled_in_and_read(frames, tmp_path, capsys):
    given = [*boxes(tmp_path, ["000.png", "005.png"]), "--top", "6", "--min-distance", "0"]
    rank(frames, *given, "--audit", "24")
    sheet = frames.parent / "out" / "audit.csv"
    _, *lines = sheet.read_text().splitlines()
    assert len(lines) == 24 and all(line.endswith(",") for line in lines)
    sheet.write_text(
        "\n".join(["path,rare", *(f"{n}{'yes' if is_rare(n[:-1]) else 'no'}" for n in lines)])
    )
    with pytest.raises(SystemExit, match="--audit: expected no filled sheet"):
        rank(frames, *given, "--audit", "24")
    capsys.readouterr()
    rank(frames, *given, "--audited", str(sheet))
    said = capsys.readouterr().out
    assert "audit of 24 of 38 images, 6 of them listed" in said
    assert "precision of the 6 listed: 1.000 [1.000, 1.000]; of random picks: " in said
    assert "recall: 1.000" in said and len(sheet.read_text().split("yes")) == 7
    assert "precision of the 6 listed" in (frames.parent / "out" / "report.html").read_text()
    sheet.write_text(sheet.read_text().replace(",yes", ",perhaps"))
    with pytest.raises(SystemExit, match="expected yes or no in the column rare, got 'perhaps'"):
        rank(frames, *given, "--audited", str(sheet))
    sheet.unlink()


def test_answers_refit_the_list_and_name_what_to_ask_next(frames, tmp_path, capsys):
    """From no labels at all: one yes makes exemplars, and the next list is of what was sought."""
    sheet = tmp_path / "answers.csv"
    sheet.write_text("path,rare\n005.png,yes\n010.png,yes\n015.png,yes\n001.png,no\n002.png,no\n")
    training = tmp_path / "rare.txt"
    given = ["--feedback", str(sheet), "--top", "5", "--min-distance", "0"]
    rows = rank(frames, *given, "--for-training", str(training))
    assert "chosen by exemplar." in capsys.readouterr().out
    assert all(map(is_rare, chosen(rows)))
    states = {row["path"]: row["state"] for row in rows}
    assert states["005.png"] == "exemplar" and states["001.png"] == "no" and len(rows) == 40
    assert [Path(line).name for line in training.read_text().split()] == [
        "005.png", "010.png", "015.png",
    ]  # fmt: skip
    _, *ask = (frames.parent / "out" / "ask.csv").read_text().splitlines()
    assert len(ask) == 20 and not {"005.png,", "001.png,"} & {*ask}
    left, top, right, bottom = RED
    boxed = tmp_path / "boxed.csv"
    boxed.write_text(
        f"path,rare,left,top,right,bottom\n020.png,yes,{left},{top},{right},{bottom}\n"
    )
    rows = rank(frames, "--feedback", str(sheet), str(boxed), "--top", "4", "--min-distance", "0")
    assert "chosen by exemplar-regions" in capsys.readouterr().out and rows[0]["left"]
    assert all(map(is_rare, chosen(rows)[:3]))  # of the 4 that are left
    whole = ["--exemplars", "000.png", "--feedback", str(boxed), "--top", "4"]
    rows = rank(frames, *whole, "--min-distance", "0")  # what matters in it is like the box
    assert "exemplars without boxes: " in capsys.readouterr().out and rows[0]["left"]
    assert next(row["state"] for row in rows if row["path"] == "000.png") == "exemplar"
    rank(frames, *given, "--by", "knn")
    assert "knn does not learn from answers" in capsys.readouterr().out


def test_exports_are_written_beside_the_list(frames, capsys):
    given = [*boxes(frames.parent, ["000.png", "005.png"]), "--top", "4"]
    rank(frames, *given, "--export", "coco", "yolo", "cvat", "label-studio", "fiftyone")
    out = frames.parent / "out"
    content = json.loads((out / "coco.json").read_text())
    assert len(content["images"]) == len(content["annotations"]) == 4
    assert len(list((out / "yolo" / "labels").iterdir())) == 4
    assert {"cvat.xml", "label-studio.json", "fiftyone-labels.json"} <= {
        p.name for p in out.iterdir()
    }
    with pytest.raises(SystemExit, match="--export yolo: expected a ranking by regions"):
        rank(frames, "--export", "yolo")
    with pytest.raises(SystemExit, match="Unknown --export: .*Did you mean 'coco'"):
        rank(frames, "--export", "cocoo")


# --- bad input ---


def test_files_that_cannot_be_read_are_counted_and_listed_without_a_rank(tmp_path, capsys):
    data = write(tmp_path / "data")
    (data / "900.png").touch()
    (data / "901.png").write_text("no image")
    with pytest.raises(SystemExit, match="frames: image not readable: expected at most 1.0% of 42"):
        rank(data)
    assert not (tmp_path / "out").exists()
    rows = rank(data, "--max-unreadable", "0.1", "--top", "50")
    states = {row["path"]: (row["state"], row["rank"]) for row in rows}
    assert states["900.png"] == states["901.png"] == ("unreadable", "") and len(rows) == 42
    assert "2 not readable" in capsys.readouterr().out


def test_pictures_of_16_bits_of_a_palette_and_of_cmyk_are_ranked_as_they_look(tmp_path):
    data = write(tmp_path / "data", 30)
    for number, mode in ((30, "P"), (35, "CMYK"), (40, "deep")):
        image = picture(True, number)
        if mode == "deep":
            grey = np.asarray(image.convert("L")).astype(np.uint16) * 256
            image = Image.fromarray(grey)
        else:
            image = image.quantize(64) if mode == "P" else image.convert(mode)
        image.save(data / f"{number:03d}.{'tiff' if mode == 'CMYK' else 'png'}")
    named = ["--exemplars", "000.png", "005.png", "010.png"]
    rows = rank(data, *named, "--top", "6", "--min-distance", "0")
    assert all(row["score"] for row in rows) and len(rows) == 33
    assert {"030.png", "035.tiff"} <= {row["path"] for row in rows[:8]}


def test_boxes_and_evidence_of_turned_frames_are_in_the_image_as_it_is_shown(tmp_path):
    data = write(tmp_path / "data", 40)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for path in sorted(data.iterdir())[::2]:
        Image.open(path).rotate(90, expand=True).save(path, exif=exif)
    given = boxes(tmp_path, ["000.png", "005.png", "010.png"])  # two of them are stored turned
    rows = rank(data, *given, "--top", "5", "--min-distance", "0")
    assert all(map(is_rare, chosen(rows)))
    plain = rank(
        write(tmp_path / "plain" / "data", 40), *given, "--top", "5", "--min-distance", "0"
    )
    assert [(row["path"], row["left"], row["top"]) for row in rows] == [
        (row["path"], row["left"], row["top"]) for row in plain
    ]


def test_a_list_that_names_files_twice_and_files_that_are_gone(tmp_path, capsys):
    data = write(tmp_path / "data", 20)
    listed = [f"data/{path.name}" for path in sorted(data.iterdir())]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["path", *listed, listed[0], f"./{listed[1]}"]))
    assert len(rank(path)) == 20
    assert "2 paths name files that are there already" in capsys.readouterr().out
    path.write_text("\n".join(["path", *listed, "data/gone.png"]))
    with pytest.raises(SystemExit, match="at most 1.0% of 21 files to be missing, got 1, .*gone"):
        rank(path)
    rows = rank(path, "--max-unreadable", "0.1")
    assert [row["state"] for row in rows if row["path"] == "data/gone.png"] == ["missing"]


def test_names_that_are_not_utf_8_work_to_the_end(tmp_path):
    root = os.fsencode(write(tmp_path / "data", 20))
    os.rename(root + b"/000.png", root + b"/caf\xe9.png")
    command = [SOLO_OOD, "rank", str(tmp_path / "data"), *QUICK, "--top", "20"]
    command += ["--out", f"{tmp_path}/out", "--cache", f"{tmp_path}/cache"]
    command += ["--link", f"{tmp_path}/picked", "--for-training", f"{tmp_path}/t.txt"]
    command += ["--exemplars", os.fsdecode(root + b"/caf\xe9.png"), "005.png"]
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, capture_output=True, env=ascii_only)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("ranking.csv", "report.html", "ranking.json"):
        (tmp_path / "out" / name).read_text(encoding="utf-8")
    assert "caf\\xe9.png" in (tmp_path / "out" / "ranking.csv").read_text(encoding="utf-8")
    assert root + b"/caf\xe9.png" in (tmp_path / "t.txt").read_bytes().splitlines()


def test_fewer_images_than_n_are_all_listed(tmp_path, capsys):
    rows = rank(write(tmp_path / "data", 6), "--top", "500")
    assert len(rows) == 6 and "only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (lambda data: [p.unlink() for p in data.iterdir()], [], "images, such as .jpg .*got none"),
        (
            lambda data: None,
            ["--exemplars", "none.png"],
            "--exemplars, 'none.png': .*none that end",
        ),
        (lambda data: None, ["--by", "exemplar"], "--by exemplar: expected pictures"),
        (lambda data: None, ["--by", "knm"], "Unknown detector: .*Did you mean 'knn'"),
        (
            lambda data: None,
            ["--by", "exemplar-regions", "--exemplars", "000.png"],
            "--by exemplar-regions: expected boxes",
        ),
        (
            lambda data: (data / "000.png").write_bytes(b"x"),
            ["--exemplars", "000.png"],
            r"exemplar .*000\.png: expected an image that can be read, got Unidentified",
        ),
        (
            lambda data: boxes(data.parent, ["000.png"], (0, 0, 65, 10)),
            ["--boxes", "boxes.csv"],
            "line 2: expected 0 <= left < right <= 64",
        ),
        (lambda data: None, ["--rare", "person"], "--rare: expected --exemplars with masks"),
        (lambda data: None, ["--out", "data"], "--out: expected a folder of its own"),
        (
            lambda data: [p.unlink() for p in [*data.iterdir()][3:]],
            [],
            "expected at least 4 images",
        ),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_no_output(
    tmp_path, monkeypatch, change, more, said
):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "data", 10)
    change(data)
    with pytest.raises(SystemExit, match=said):
        rank(data, *more)
    assert not (tmp_path / "out").exists()
