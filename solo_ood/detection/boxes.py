"""Boxes around what matters in images: a CSV, COCO's JSON, or BDD100K's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from solo_ood.data.lists import read_csv
from solo_ood.data.names import normalise_name
from solo_ood.data.pixels import Unreadable, header
from solo_ood.errors import UserError, unknown_name

SIDES = ("left", "top", "right", "bottom")
_CORNERS = ("x0", "y0", "x1", "y1")  # the same in other words
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
# Finds the image that a name in the file stands for; the second text says where that name is.
Find = Callable[[str, str], Path]
_Named = tuple[str, str, tuple[Any, ...]]  # where it is, the image's name, the four sides


def read_boxes(path: Path, find: Find, classes: Sequence[str] = ()) -> dict[Path, list[Box]]:
    """Return the boxes of a file by image, in pixels of the images as they are shown.

    Args:
        path: a CSV of ``path,left,top,right,bottom`` (or ``x0,y0,x1,y1``), a line for each box; a
            ``.json`` of COCO (``images``, ``annotations``, ``categories``) or of BDD100K's
            detection labels (``name``, ``labels`` with ``box2d``).
        find: see ``Find``.
        classes: of JSON files the categories that count; () = all.

    Raises:
        UserError: for a file of another form, a class that it has not, an image that is not found
            or cannot be read, or a box that is empty or not inside its image as it is shown.
    """
    if path.suffix.lower() == ".json":
        named = _of_json(path, classes)
    elif classes:
        raise UserError(
            "--rare",
            expected="no classes beside --boxes CSV, whose boxes are all of what matters",
            got=", ".join(classes),
            remedy="Leave --rare out, or give boxes in COCO's or BDD100K's JSON.",
        )
    else:
        named = _of_csv(path)
    boxes: dict[Path, list[Box]] = {}
    known: dict[str, Path] = {}
    for what, name, sides in named:
        if name not in known:
            known[name] = find(name, what)
        boxes.setdefault(known[name], []).append(checked_box(sides, known[name], what))
    if not boxes:
        raise UserError(
            path.name,
            expected=f"boxes{' of ' + ', '.join(classes) if classes else ''}",
            got="none",
            remedy="Draw some around what matters in 5 to 20 images.",
        )
    return boxes


def _of_csv(path: Path) -> Iterator[_Named]:
    sides = _CORNERS if _has_corners(path) else SIDES
    for line, row in read_csv(path, ("path", *sides)):
        yield f"{path.name}, line {line}", row["path"], tuple(row[side] for side in sides)


def _has_corners(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline().lower()
    except OSError:  # told by what reads the rest
        return False
    return all(corner in head for corner in _CORNERS)


def _of_json(path: Path, classes: Sequence[str]) -> Iterator[_Named]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = list(_of_coco(content) if isinstance(content, dict) else _of_bdd(content))
    except OSError as error:
        got, remedy = str(error), "Check its spelling, and that you may read the file."
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got, remedy = f"{type(error).__name__}: {error}", "Export it again, or give a CSV."
    else:
        there = {category for category, _, _ in found}
        for name in classes:
            if normalise_name(name) not in there:
                raise unknown_name("class in --rare", name, there)
        wanted = {*map(normalise_name, classes)} or there
        return (
            (f"{path.name}, box {number}", name, sides)
            for number, (category, name, sides) in enumerate(found, 1)
            if category in wanted
        )
    raise UserError(
        path.name,
        expected="COCO's JSON (images, annotations, categories) or BDD100K's (name, labels)",
        got=got,
        remedy=remedy,
    )


def _of_coco(content: dict[str, Any]) -> Iterator[_Named]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    categories = {one["id"]: normalise_name(one["name"]) for one in content.get("categories", ())}
    for box in content["annotations"]:
        left, top, width, height = map(float, box["bbox"])
        category = categories.get(box.get("category_id"), "")
        yield category, names[box["image_id"]], (left, top, left + width, top + height)


def _of_bdd(content: list[dict[str, Any]]) -> Iterator[_Named]:
    for image in content:
        for label in image.get("labels") or ():
            if (box := label.get("box2d")) is not None:
                sides = tuple(float(box[side]) for side in ("x1", "y1", "x2", "y2"))
                yield normalise_name(label.get("category", "")), image["name"], sides


def checked_box(sides: Sequence[Any], image: Path, what: str) -> Box:
    """Return a box as numbers.

    Args:
        sides: left, top, right, bottom, in pixels of the image as it is shown.
        image: that it is in.
        what: where it is written, for errors.

    Raises:
        UserError: if it is empty or not inside the image, or this cannot be read.
    """
    try:
        shown = header(image)
    except Unreadable as error:
        remedy = "Repair the file, or leave its boxes out."
        raise UserError(what, expected="an image", got=error.reason, remedy=remedy) from error
    width, height = shown.width, shown.height
    try:
        left, top, right, bottom = map(float, sides)
    except ValueError:
        left, top, right, bottom = (float("nan"),) * 4
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise UserError(
            what,
            expected=f"0 <= left < right <= {width} and 0 <= top < bottom <= {height}",
            got=", ".join(f"{name} {side}" for name, side in zip(SIDES, sides)),
            remedy=f"Give the box in pixels of {image.name}, as a viewer shows it.",
        )
    return left, top, right, bottom
