"""Exports, each read back: by the tool's own library where it is installed, else by its rules."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from solo_ood.data.frames import Frames
from solo_ood.errors import UserError
from solo_ood.mining.export import FORMATS, check_formats, hits_of, write_exports
from solo_ood.mining.options import EXPORTS
from solo_ood.mining.ranking import Entry, Ranking

BOXES = [(10.0, 5.0, 30.0, 25.0), (0.0, 0.0, 64.0, 48.0), (1.0, 2.0, 3.0, 40.0)]
SIZES = [(64, 48), (64, 48), (32, 48)]


@pytest.fixture
def data(tmp_path) -> Frames:
    """The third picture is stored on its side."""
    paths = []
    for number, (width, height) in enumerate(SIZES):
        path = tmp_path / "data" / f"clip {number}" / "a.jpg"  # equal names
        path.parent.mkdir(parents=True)
        exif = Image.Exif()
        if number == 2:
            exif[ExifTags.Base.Orientation] = 6
            width, height = height, width
        Image.new("RGB", (width, height)).save(path, exif=exif)
        paths.append(path)
    return Frames(tmp_path / "data", tuple(paths), ("",) * 3, "folder")


def ranking(data: Frames, boxes: bool) -> Ranking:
    return Ranking(
        tuple(
            Entry(
                "chosen",
                path,
                "",
                0,
                n + 1,
                0.9 - n / 10,
                99.0 - n,
                path,
                0,
                box if boxes else None,
            )
            for n, (path, box) in enumerate(zip(data.paths, BOXES))
        )
        + (Entry("further", data.root / "other.jpg", "", 0, 4),)
    )


def export(data: Frames, name: str, boxes: bool = True) -> Path:
    out = data.root.parent / "out"
    out.mkdir(exist_ok=True)
    assert write_exports([name], hits_of(ranking(data, boxes), data), "person", out, out)
    return out


def test_the_command_offers_all_formats():
    assert tuple(FORMATS) == EXPORTS


def test_coco_is_read_by_pycocotools(data):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    read = COCO(str(export(data, "coco") / "coco.json"))
    assert [c["name"] for c in read.loadCats(read.getCatIds())] == ["person"]
    for number, image in enumerate(read.loadImgs(sorted(read.getImgIds()))):
        assert (image["width"], image["height"]) == SIZES[number]
        assert data.root / image["file_name"] == data.paths[number]
        (found,) = read.loadAnns(read.getAnnIds(imgIds=[image["id"]]))
        left, top, width, height = found["bbox"]
        assert (left, top, left + width, top + height) == BOXES[number]
        assert found["score"] == pytest.approx(0.9 - number / 10)
        assert read.annToMask(found).shape == SIZES[number][::-1]


def test_coco_has_the_boxes_in_its_own_terms(data):
    content = json.loads((export(data, "coco") / "coco.json").read_text())
    assert [a["bbox"] for a in content["annotations"]] == [
        [10, 5, 20, 20], [0, 0, 64, 48], [1, 2, 2, 38],
    ]  # fmt: skip
    assert {a["image_id"] for a in content["annotations"]} == {i["id"] for i in content["images"]}


def test_yolo_is_read_by_supervision(data):
    supervision = pytest.importorskip("supervision")
    folder = export(data, "yolo") / "yolo"
    read = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert read.classes == ["person"] and len(read) == 3
    for path, _, found in read:
        number = int(Path(path).name[:4]) - 1
        if number < 2:  # OpenCV, which reads sizes there, knows of EXIF in its own way
            assert found.xyxy[0] == pytest.approx(BOXES[number], abs=0.01)


def test_yolo_has_relative_centres_beside_links_to_the_images(data):
    folder = export(data, "yolo") / "yolo"
    links = sorted((folder / "images").iterdir())
    assert [link.resolve() for link in links] == [path.resolve() for path in data.paths]
    for link, box, (width, height) in zip(links, BOXES, SIZES):
        kind, x, y, w, h = map(float, (folder / "labels" / f"{link.stem}.txt").read_text().split())
        sides = (
            (x - w / 2) * width,
            (y - h / 2) * height,
            (x + w / 2) * width,
            (y + h / 2) * height,
        )
        assert kind == 0 and sides == pytest.approx(box, abs=0.01)
    assert export(data, "yolo") and len(list((folder / "images").iterdir())) == 3  # anew


def test_label_studio_tasks_fit_its_own_check_of_predictions(data):
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    for boxes, control in ((True, "RectangleLabels"), (False, "Choices")):
        inner = '<Label value="person"/>' if boxes else '<Choice value="person"/>'
        config = f"""<View><Image name="image" value="$image"/>
            <{control} name="label" toName="image">{inner}</{control}></View>"""
        known = interface.LabelInterface(config)
        tasks = json.loads((export(data, "label-studio", boxes) / "label-studio.json").read_text())
        for task in tasks:
            (prediction,) = task["predictions"]
            assert known.validate_prediction(prediction, return_errors=True) == []
            prediction["result"][0]["from_name"] = "other"
            assert not known.validate_prediction(prediction)


def test_label_studio_has_percent_of_the_image_as_it_is_shown(data):
    tasks = json.loads((export(data, "label-studio") / "label-studio.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=clip%200/a.jpg"
    for task, box, (width, height) in zip(tasks, BOXES, SIZES):
        (found,) = task["predictions"][0]["result"]
        value = found["value"]
        assert (found["original_width"], found["original_height"]) == (width, height)
        left, top = value["x"] * width / 100, value["y"] * height / 100
        right, bottom = left + value["width"] * width / 100, top + value["height"] * height / 100
        assert (left, top, right, bottom) == pytest.approx(box)
        assert 0 <= task["predictions"][0]["score"] <= 1


@pytest.mark.parametrize("boxes", [True, False])
def test_cvat_has_an_image_with_a_box_or_a_tag(data, boxes):
    root = ElementTree.parse(export(data, "cvat", boxes) / "cvat.xml").getroot()
    assert root.find("version").text == "1.1"
    assert root.find("meta/task/labels/label/name").text == "person"
    for image, path, box, (width, height) in zip(root.iter("image"), data.paths, BOXES, SIZES):
        assert data.root / image.get("name") == path
        assert (image.get("width"), image.get("height")) == (f"{width}", f"{height}")
        (marked,) = image
        assert marked.tag == ("box" if boxes else "tag") and marked.get("label") == "person"
        assert float(marked.find("attribute").text) > 0
        if boxes:
            sides = tuple(float(marked.get(side)) for side in ("xtl", "ytl", "xbr", "ybr"))
            assert sides == box and marked.get("occluded") == "0"


@pytest.mark.parametrize("boxes", [True, False])
def test_fiftyone_names_the_files_and_has_relative_boxes(data, boxes):
    out = export(data, "fiftyone", boxes)
    content = json.loads((out / "fiftyone-labels.json").read_text())
    files = json.loads((out / "fiftyone-data.json").read_text())
    assert content["classes"] == ["person"] and set(files) == set(content["labels"])
    assert list(files.values()) == [str(path) for path in data.paths]
    for labels, box, (width, height) in zip(content["labels"].values(), BOXES, SIZES):
        (label,) = labels if boxes else [labels]
        assert label["label"] == "person" and 0 <= label["confidence"] <= 1
        if boxes:
            left, top, w, h = label["bounding_box"]
            sides = (left * width, top * height, (left + w) * width, (top + h) * height)
            assert sides == pytest.approx(box)


def test_yolo_without_boxes_is_refused_before_any_work():
    with pytest.raises(UserError, match="--export yolo: expected a ranking by regions"):
        check_formats(["coco", "yolo"], False)
    check_formats(["coco"], False)


def test_an_image_that_is_gone_meanwhile_is_left_out(data):
    data.paths[1].unlink()
    assert [hit.rank for hit in hits_of(ranking(data, True), data)] == [1, 3]
