"""Boxes of a CSV, of COCO and of BDD100K: the same boxes, in the image as it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from solo_ood.detection.boxes import read_boxes
from solo_ood.errors import UserError

BOXES = [("a.jpg", "person", (2, 3, 10, 20)), ("a.jpg", "car", (1, 1, 5, 5))]
BOXES += [("b.jpg", "person", (0, 0, 16, 32))]


@pytest.fixture
def data(tmp_path) -> Path:
    """``a.jpg`` is stored on its side: 32 x 16 pixels, shown as 16 wide and 32 high."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (16, 32)).save(tmp_path / "b.jpg")
    (tmp_path / "bad.jpg").touch()
    return tmp_path


def coco(boxes) -> object:
    files = list(dict.fromkeys(name for name, _, _ in boxes))
    return {
        "images": [{"id": files.index(name), "file_name": name} for name in files],
        "categories": [{"id": 7, "name": "person"}, {"id": 9, "name": "car"}],
        "annotations": [
            {
                "image_id": files.index(name),
                "category_id": {"person": 7, "car": 9}[kind],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            for name, kind, (x0, y0, x1, y1) in boxes
        ],
    }


def bdd(boxes) -> object:
    files = dict.fromkeys(name for name, _, _ in boxes)
    return [
        {
            "name": file,
            "labels": [
                {"category": kind, "box2d": dict(zip(("x1", "y1", "x2", "y2"), sides))}
                for name, kind, sides in boxes
                if name == file
            ]
            + [{"category": "lane", "poly2d": []}],
        }
        for file in files
    ] + [{"name": "none.jpg", "labels": None}]


def read(data: Path, form: str, boxes=BOXES, classes=()):
    if form in ("left,top,right,bottom", "x0,y0,x1,y1"):
        lines = [f"{name},{','.join(map(str, sides))}" for name, _, sides in boxes]
        path = data / "boxes.csv"
        path.write_text("\n".join([f"path,{form}", *lines]))
    else:
        path = data / "boxes.json"
        path.write_text(json.dumps({"coco": coco, "bdd": bdd}[form](boxes)))
    return read_boxes(path, lambda name, what: data / name, classes)


@pytest.mark.parametrize("form", ["left,top,right,bottom", "x0,y0,x1,y1", "coco", "bdd"])
def test_all_forms_give_the_same_boxes_in_the_image_as_it_is_shown(data, form):
    assert read(data, form) == {
        data / "a.jpg": [(2, 3, 10, 20), (1, 1, 5, 5)],
        data / "b.jpg": [(0, 0, 16, 32)],
    }


@pytest.mark.parametrize("form", ["coco", "bdd"])
def test_of_json_the_classes_that_matter_are_taken(data, form):
    assert read(data, form, classes=("car",)) == {data / "a.jpg": [(1, 1, 5, 5)]}
    with pytest.raises(UserError, match="class in --rare.*car, person.*Did you mean 'person'"):
        read(data, form, classes=("persn",))


@pytest.mark.parametrize("form", ["x0,y0,x1,y1", "coco", "bdd"])
@pytest.mark.parametrize("sides", [(0, 0, 17, 5), (-1, 0, 5, 5), (5, 5, 5, 9), (0, 0, 5, 33)])
def test_a_box_outside_its_image_names_its_place_and_the_limits(data, form, sides):
    where = "line 2" if "," in form else "box 1"
    with pytest.raises(UserError, match=f"{where}: expected 0 <= left < right <= 16 and .* <= 32"):
        read(data, form, [("a.jpg", "person", sides)])


def test_an_image_that_cannot_be_read_is_named(data):
    with pytest.raises(UserError, match="line 2: expected an image, got Unidentified"):
        read(data, "x0,y0,x1,y1", [("bad.jpg", "", (0, 0, 1, 1))])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected COCO's JSON .* or BDD100K's .*got JSONDecodeError"),
        ('{"images": []}', "got KeyError: 'annotations'"),
        ('[{"name": "a.jpg"}]', "expected boxes, got none"),
        ("3", "got TypeError"),
    ],
)
def test_other_json_is_one_clear_error(data, text, said):
    (data / "x.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_boxes(data / "x.json", lambda name, what: data / name)


def test_classes_beside_a_csv_are_refused(data):
    with pytest.raises(UserError, match="--rare: expected no classes beside --boxes CSV"):
        read(data, "x0,y0,x1,y1", classes=("person",))
