"""``solo-ood rank`` on videos: rows with clip, frame and time, and pictures without unpacking."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from filmed import HEIGHT, RED, WIDTH, write_video
from PIL import Image

from solo_ood.cli import main

pytest.importorskip("av")
RARE = (3, 9)


def rank(data: Path, *more: str) -> list[dict[str, str]]:
    """Run the command; return the rows of ``ranking.csv``."""
    here = data.parent
    quick = [
        *("--embedder", "resnet18:random", "--image-size", "64", "--num-workers", "0"),
        *("--accelerator", "cpu", "--out", f"{here}/out", "--cache", f"{here}/cache"),
    ]
    main(["rank", str(data), *quick, *more])
    with (here / "out" / "ranking.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def drives(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drives") / "data"
    write_video(root / "day.mp4", 12, rate=4, rare=RARE)
    write_video(root / "night.mkv", 12, rate=4)
    return root


def test_frames_are_ranked_and_what_was_chosen_is_written_as_images(drives, capsys):
    before = {path: path.stat().st_mtime_ns for path in drives.iterdir()}
    boxes = drives.parent / "boxes.csv"
    sides = ",".join(map(str, RED))
    boxes.write_text(f"path,left,top,right,bottom\nday.mp4/frame_000003.png,{sides}\n")
    link = drives.parent / "picked"
    rows = rank(
        drives,
        *("--boxes", str(boxes), "--top", "3", "--min-distance", "0", "--block", "2"),
        *("--link", str(link), "--export", "coco", "yolo"),
    )
    assert "24 of 24 frames of 2 videos" in capsys.readouterr().out
    best = rows[0]
    assert (best["path"], best["clip"]) == ("day.mp4/frame_000009.png", "day.mp4")
    assert (best["frame"], float(best["time"])) == ("9", 2.25)
    assert 0 <= float(best["left"]) < RED[2] and float(best["bottom"]) <= HEIGHT
    assert {row["clip"] for row in rows} == {"day.mp4", "night.mkv"} and len(rows) == 24
    first = link / "0001-day-frame_000009.png"
    with Image.open(first) as image:
        assert image.size == (WIDTH, HEIGHT)
        assert np.asarray(image)[30, 28, 0] > 180  # the red block
    assert len(list(link.iterdir())) == 3
    out = drives.parent / "out"
    coco = json.loads((out / "coco.json").read_text())
    assert all((link / image["file_name"]).is_file() for image in coco["images"])
    images = sorted((out / "yolo" / "images").iterdir())
    assert images[0].resolve() == first.resolve()
    assert (out / "contact-sheet.jpg").is_file() and "data:image/jpeg" in (
        out / "report.html"
    ).read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in drives.iterdir()} == before


def test_outputs_that_name_files_ask_for_images(drives, tmp_path):
    os.symlink(drives, tmp_path / "data")
    for more, said in (
        (["--export", "coco"], "--export: expected --link DIR beside it"),
        (["--for-training", str(tmp_path / "x.txt")], "--for-training: expected image files"),
    ):
        with pytest.raises(SystemExit, match=said):
            rank(tmp_path / "data", *more)
    assert not (tmp_path / "out").exists()
