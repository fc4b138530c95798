"""The list for the tools that people label with: scores and boxes as pre-annotation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from solo_ood.data.frames import Frames
from solo_ood.data.pixels import Unreadable, header
from solo_ood.data.videos import frame_of
from solo_ood.detection.boxes import Box
from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.files.text import printable
from solo_ood.mining.output import linked_name
from solo_ood.mining.ranking import Ranking

MODEL = "solo-ood"


@dataclass(frozen=True)
class Hit:
    """A chosen image.

    Attributes:
        path: of the file.
        name: its path from the folder of the data; of a frame of a video that in --link.
        width: as it is shown, in pixels.
        height: the same.
        rank: in the list.
        score: of the ranking.
        confidence: the percentile of the score / 100: tools want a number in [0, 1].
        box: around the best region; ``None`` = whole pictures were ranked.
    """

    path: Path
    name: str
    width: int
    height: int
    rank: int
    score: float
    confidence: float
    box: Box | None


def hits_of(ranking: Ranking, frames: Frames, link: Path | None = None) -> list[Hit]:
    """Return the chosen images that can still be read; frames of videos lie in ``link``."""
    hits = []
    for entry in ranking.chosen:
        try:
            shown = header(entry.path)
        except Unreadable:
            continue
        path, name = entry.path, frames.name(entry.path)
        if link is not None and frame_of(path) is not None:
            path, name = link / linked_name(entry), printable(linked_name(entry))
        share = round(entry.percentile / 100, 5)
        hits.append(
            Hit(
                path,
                name,
                shown.width,
                shown.height,
                entry.rank or 0,
                entry.score,
                share,
                entry.box,
            )
        )
    return hits


def coco(hits: Sequence[Hit], label: str) -> dict[str, Any]:
    """Return COCO's JSON: ``file_name`` counts from the folder of the data."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, hit in enumerate(hits, 1):
        size = {"width": hit.width, "height": hit.height}
        images.append(
            {"id": number, "file_name": hit.name, **size, "rank": hit.rank, "score": hit.score}
        )
        if hit.box is not None:
            left, top, right, bottom = hit.box
            sides = [left, top, right - left, bottom - top]
            about = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            around = [left, top, right, top, right, bottom, left, bottom]
            area = {"bbox": sides, "area": sides[2] * sides[3], "iscrowd": 0}
            area["segmentation"] = [around]  # readers such as pycocotools look for one
            annotations.append({**about, **area, "score": hit.score})
    return {
        "info": {"description": f"ranked by {MODEL}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": label, "supercategory": ""}],
    }


def label_studio(hits: Sequence[Hit], label: str) -> list[dict[str, Any]]:
    """Return tasks of Label Studio with predictions, for local files below the folder of the data.

    For a labelling config with an ``Image`` called ``image``, and ``RectangleLabels`` (``Choices``,
    where whole pictures were ranked) called ``label``.
    """
    tasks = []
    for hit in hits:
        kind, value = "choices", dict[str, Any](choices=[label])
        if hit.box is not None:
            left, top, width, height = _relative(hit, hit.box, 100)
            sides = {"x": left, "y": top, "width": width, "height": height, "rotation": 0}
            kind, value = "rectanglelabels", {**sides, "rectanglelabels": [label]}
        result = {
            **{"id": f"rank-{hit.rank}", "from_name": "label", "to_name": "image", "type": kind},
            **{"original_width": hit.width, "original_height": hit.height, "image_rotation": 0},
            **{"value": value, "score": hit.confidence},
        }
        prediction = {"model_version": MODEL, "score": hit.confidence, "result": [result]}
        data = {"image": f"/data/local-files/?d={quote(hit.name)}", "rank": hit.rank}
        tasks.append({"data": data, "predictions": [prediction]})
    return tasks


def fiftyone(hits: Sequence[Hit], label: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return ``labels.json`` and ``data.json`` of FiftyOne's image detection dataset.

    Where whole pictures were ranked, of its image classification dataset. The second one says
    where the files are: nothing is copied.
    """
    labels: dict[str, Any] = {}
    for hit in hits:
        found = {"label": label, "confidence": hit.confidence, "rank": hit.rank}
        if hit.box is None:
            labels[_key(hit)] = found
        else:
            box = list(_relative(hit, hit.box, 1))
            labels[_key(hit)] = [{**found, "bounding_box": box}]
    data = {_key(hit): str(hit.path.absolute()) for hit in hits}
    return {"classes": [label], "labels": labels}, data


def cvat(hits: Sequence[Hit], label: str) -> bytes:
    """Return the XML of "CVAT for images 1.1"; whole pictures have a tag."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(
        ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels"
    )
    about = ElementTree.SubElement(labels, "label")
    ElementTree.SubElement(about, "name").text = label
    attributes = ElementTree.SubElement(about, "attributes")
    attribute = ElementTree.SubElement(attributes, "attribute")
    for key, text in (("name", "score"), ("mutable", "False"), ("input_type", "text")):
        ElementTree.SubElement(attribute, key).text = text
    for number, hit in enumerate(hits):
        size = {"width": f"{hit.width}", "height": f"{hit.height}"}
        name = {"id": f"{number}", "name": hit.name}
        image = ElementTree.SubElement(root, "image", {**name, **size})
        common = {"label": label, "source": "auto"}
        if hit.box is None:
            marked = ElementTree.SubElement(image, "tag", common)
        else:
            sides = {k: f"{v:.2f}" for k, v in zip(("xtl", "ytl", "xbr", "ybr"), hit.box)}
            more = {"occluded": "0", "z_order": "0", **sides}
            marked = ElementTree.SubElement(image, "box", {**common, **more})
        ElementTree.SubElement(marked, "attribute", name="score").text = f"{hit.score:.6g}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def write_yolo(hits: Sequence[Hit], label: str, folder: Path) -> None:
    """Write YOLO's layout: ``data.yaml``, links in ``images``, boxes in ``labels``.

    The name of an image begins with its rank, so that equal names of different folders stay apart.
    """
    with atomic.replaced_folder(folder) as staged:
        for name in ("images", "labels"):
            (staged / name).mkdir()
        for hit in hits:
            assert hit.box is not None  # refused before
            stem = f"{hit.rank:04d}-{hit.path.stem}"
            (staged / "images" / f"{stem}{hit.path.suffix}").symlink_to(hit.path.absolute())
            left, top, width, height = _relative(hit, hit.box, 1)
            sides = (left + width / 2, top + height / 2, width, height)
            line = " ".join(f"{side:.6f}" for side in sides)
            (staged / "labels" / f"{stem}.txt").write_text(f"0 {line}\n", encoding="utf-8")
        text = f"path: .\ntrain: images\nval: images\nnames:\n  0: {json.dumps(label)}\nnc: 1\n"
        (staged / "data.yaml").write_text(text, encoding="utf-8")


def _relative(hit: Hit, box: Box, unit: float) -> tuple[float, float, float, float]:
    """Return left, top, width, height in parts of the image, ``unit`` being all of it."""
    left, top, right, bottom = box
    across, down = unit / hit.width, unit / hit.height
    return left * across, top * down, (right - left) * across, (bottom - top) * down


def _key(hit: Hit) -> str:
    return f"{hit.rank:04d}-{os.path.splitext(hit.name)[0]}"


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


Files = dict[str, bytes]
FORMATS: dict[str, Callable[[Sequence[Hit], str], Files]] = {
    "coco": lambda hits, label: {"coco.json": _json(coco(hits, label))},
    "fiftyone": lambda hits, label: dict(
        zip(("fiftyone-labels.json", "fiftyone-data.json"), map(_json, fiftyone(hits, label)))
    ),
    "cvat": lambda hits, label: {"cvat.xml": cvat(hits, label)},
    "label-studio": lambda hits, label: {"label-studio.json": _json(label_studio(hits, label))},
    "yolo": lambda hits, label: {},  # a folder, see write_yolo
}


def check_formats(formats: Sequence[str], with_boxes: bool) -> None:
    """Raise ``UserError`` for a format that needs boxes where there are none."""
    if "yolo" in formats and not with_boxes:
        raise UserError(
            "--export yolo",
            expected="a ranking by regions, whose hits have boxes",
            got="one of whole pictures",
            remedy="Give --boxes, or another format.",
        )


def write_exports(
    formats: Sequence[str], hits: Sequence[Hit], label: str, folder: Path, out: Path
) -> list[str]:
    """Write the files of these formats to ``folder``, the folder of YOLO to ``out``; name them."""
    said = []
    for name in dict.fromkeys(formats):
        if name == "yolo":
            write_yolo(hits, label, out / "yolo")
            said.append(f"yolo: {out / 'yolo' / 'data.yaml'}")
        for file, content in FORMATS[name](hits, label).items():
            (folder / file).write_bytes(content)
            said.append(f"{name}: {out / file}")
    return said
