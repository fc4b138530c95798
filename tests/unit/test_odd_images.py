"""``solo-ood measure`` on images of odd kinds: seen right, and never the end of the table."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from lightning.pytorch import Callback
from PIL import ExifTags, Image
from short_runs import AT_ONCE
from torchvision.datasets import ImageFolder

from solo_ood.cli import main
from solo_ood.data.bdd import pair_images_and_masks
from solo_ood.data.images import read_splits
from solo_ood.data.training_images import show_all_bits
from solo_ood.embedding.copies import copies_note, has_equal
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import ExtractConfig, embed, scale_and_crop
from solo_ood.embedding.networks import make_embedder
from solo_ood.pages import plots
from solo_ood.training.preflight import expand_home

QUICK = [
    *("--image-size", "32", "--bootstrap", "20", "--repeats", "1", "--draws", "2"),
    *("--n-exemplars", "3", "--num-workers", "0", "--sizes", "all", "--percentiles", "0.8"),
    *("--accelerator", "cpu", "--embedder", "resnet18:random"),
]


def arguments(data: Path, *more: str, detectors: str = "knn", rare: str = "cyclist") -> list[str]:
    places = ["--out", f"{data.parent}/out", "--cache", f"{data.parent}/cache"]
    return ["measure", str(data), "--rare", rare, "--detectors", *detectors.split(), *places, *more]


def table(data: Path) -> list[dict[str, str]]:
    with (data.parent / "out" / "table.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def picture(rare: bool, number: int) -> np.ndarray:
    pixels = np.random.default_rng(number).integers(90, 130, (48, 64, 3), dtype=np.uint8)
    if rare:
        pixels[10:34, 20:44] = (250, 20, 20)
    return pixels


def folder(root: Path, change=lambda image, rare: image, suffix: str = "png") -> Path:
    """24 cars and 12 cyclists; ``change`` makes of each picture what is to be tested."""
    for name, n in (("car", 24), ("cyclist", 12)):
        (root / name).mkdir(parents=True)
        for i in range(n):
            image = change(Image.fromarray(picture(name == "cyclist", i)), name == "cyclist")
            image.save(root / name / f"{i:02d}.{suffix}")
    return root


@pytest.fixture(scope="module")
def network() -> Embedder:
    return make_embedder("resnet18:random")


def deep(image: Image.Image, rare: bool) -> Image.Image:
    pixels = 5000 + 30 * np.asarray(image.getchannel(0)).astype(np.uint16)
    if rare:
        pixels[10:34, 20:44] = 30000
    return Image.fromarray(pixels)


def test_16_bit_grey_levels_are_kept_and_noted(tmp_path, capsys):
    data = folder(tmp_path / "data", deep)
    main([*arguments(data, "--cross-fit"), *QUICK, "--image-size", "64"])
    assert float(table(data)[0]["auroc"]) > 0.9  # .5 while all of them were white
    said = capsys.readouterr().out
    assert "36 of 36 images have more than 8 bits: in all 0 is black, 65535 white" in said
    with Image.open(tmp_path / "out" / "images-1-cyclist-knn.jpg") as sheet:
        tiles = np.asarray(sheet.convert("L"))[100:]
    assert np.mean((tiles > 20) & (tiles < 200)) > 0.3  # grey pictures, not white ones


def embedded(data: Path, network: Embedder, **options) -> np.ndarray:
    config = ExtractConfig(data.parent / "cache", 32, num_workers=0, accelerator="cpu")
    split = read_splits(data)[0]
    return embed(split, network, config, data, "fit", **options).pooled


def test_network_sees_exif_orientation_and_transparency_as_shown(tmp_path, network):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6

    def turned(image: Image.Image, rare: bool) -> Image.Image:
        stored = image.rotate(90, expand=True)
        stored.info["exif"] = exif.tobytes()
        return stored

    def behind(image: Image.Image, rare: bool) -> Image.Image:
        return Image.merge("RGBA", [*image.split(), image.getchannel(0).point(lambda x: 255)])

    plain = embedded(folder(tmp_path / "plain"), network)
    np.testing.assert_array_equal(embedded(folder(tmp_path / "glass", behind), network), plain)
    data = folder(tmp_path / "turned")
    for path in data.rglob("*.png"):
        turned(Image.open(path), False).save(path, exif=exif)
    np.testing.assert_array_equal(embedded(data, network), plain)


def test_most_common_shape_decides(tmp_path, capsys):
    data = folder(tmp_path / "data")
    Image.new("RGB", (24, 96)).save(data / "car" / "00.png")
    main([*arguments(data, "--cross-fit"), *QUICK])
    said = capsys.readouterr().out
    assert "fit: 1 of 36 images lose more than 20% of their area" in said
    about = [json.loads(path.read_text()) for path in tmp_path.glob("cache/*/about.json")]
    assert [facts["transform"] for facts in about] == ["cover 32 x 40, middle, bicubic"]


def test_an_image_of_one_line_is_not_scaled_whole():
    line = Image.new("RGB", (60_000, 1), "red")
    seen = scale_and_crop(line, (512, 680), Image.Resampling.BICUBIC)  # 31 million pixels wide
    assert seen.size == (680, 512) and seen.getpixel((0, 0)) == (255, 0, 0)


def test_frames_follow_each_other_by_their_number(tmp_path):
    names = [f"frame_{number}" for number in (1, 2, 9, 10, 11, 100)]
    for name in names:
        for place in ("data/a", "data/b", "bdd/images/10k/train", "bdd/labels/sem_seg/masks/train"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(tmp_path / place / f"{name}.png")
    split = read_splits(tmp_path / "data")[0]
    assert [path.stem for path in split.paths] == names * 2
    assert split.labels.tolist() == [0] * 6 + [1] * 6
    images, masks, _ = pair_images_and_masks(tmp_path / "bdd", "train")
    assert [path.stem for path in images] == [path.stem for path in masks] == names


def test_equal_images_are_counted_once_and_keep_the_table(tmp_path, capsys):
    data = folder(tmp_path / "data", lambda image, rare: Image.new("RGB", (64, 48)))
    main([*arguments(data, "--cross-fit", detectors="knn isolation-forest lof pca"), *QUICK])
    assert {row["detector"] for row in table(data)} == {"knn", "isolation-forest", "lof", "pca"}
    said = capsys.readouterr().out
    assert said.count("36 of 36 embeddings are equal to another") == 1
    assert "could not be drawn" not in said  # a histogram of equal scores is one bar


def test_rows_that_are_equal_but_for_rounding_are_found():
    feats = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    feats[[3, 77, 400]] = feats[9] * (1 + 1e-7)
    feats[20] = 2 * feats[21]
    assert np.flatnonzero(has_equal(feats)).tolist() == [3, 9, 20, 21, 77, 400]
    assert has_equal(feats[:1]).tolist() == [False] and has_equal(feats[:0]).tolist() == []


def test_copies_in_both_splits_are_counted_and_others_are_not():
    fit, test = np.random.default_rng(0).normal(size=(2, 200, 64)).astype(np.float32)
    test[[1, 2]] = test[0]  # copies of each other, not of a picture that was fitted on
    assert copies_note(fit, test) == [] == copies_note(fit, test[:0])
    test[[5, 6, 90]] = fit[[9, 9, 11]] * 2
    assert copies_note(fit, test)[0].startswith("3 of 200 test embeddings are equal to one of the")


@pytest.mark.parametrize("values", [[], [5.0] * 9, [0.0] * 9, [1.0, 1 + 1e-16], [np.inf, np.nan]])
def test_any_scores_have_a_histogram(tmp_path, values):
    figure = plots.score_histogram(values, threshold=1.0, title="a $b$ class$")
    assert plots.save(figure, tmp_path / "a.png").is_file()
    few = plots.bin_edges([1e-9, 3e-9], 2)
    np.testing.assert_allclose(few, [1e-9, 2e-9, 3e-9])  # small is not equal


def test_failed_pictures_do_not_cost_the_table(tmp_path, capsys, monkeypatch):
    data = folder(tmp_path / "data")
    monkeypatch.setenv("PATH", "")  # where matplotlib looks for LaTeX
    with matplotlib.rc_context({"text.usetex": True}):
        main([*arguments(data, "--cross-fit"), *QUICK])
    assert table(data)[0]["detector"] == "knn"
    told = "embeddings-1-cyclist.png could not be drawn: RuntimeError: Failed to process string"
    assert told in capsys.readouterr().out
    assert told in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "out" / "table.csv").unlink()
    (tmp_path / "out" / "scores-1-cyclist.png").mkdir()  # in the way: an error of the disk
    with pytest.raises(OSError, match="scores-1-cyclist.png"):
        main([*arguments(data, "--cross-fit"), *QUICK])
    assert table(data)[0]["detector"] == "knn"
    assert "resnet18, rare: cyclist" in capsys.readouterr().out
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_failed_figure_is_reported(tmp_path):
    def figure():
        raise OverflowError("too\nlarge")

    (tmp_path / "a.png").write_bytes(b"half")
    told = plots.save_or_explain(figure, tmp_path / "a.png")
    assert told == "a.png could not be drawn: OverflowError: too large"
    assert not (tmp_path / "a.png").exists()


DAMAGED = {
    "a\nb.jpg": lambda path: path.touch(),
    "damaged.avif": lambda path: _damage(path),
    "empty.jpg": lambda path: path.touch(),
    "text.jpg": lambda path: path.write_text("no image"),
}


def _damage(path: Path) -> None:
    Image.fromarray(picture(False, 0)).save(path, "AVIF")
    whole = bytearray(path.read_bytes())
    whole[107] ^= 0xFF  # the RuntimeError of a decoder
    path.with_suffix(".png").write_bytes(whole)
    path.unlink()


def test_files_that_cannot_be_read_are_left_out_counted_and_named(tmp_path, capsys):
    data = folder(tmp_path / "data")
    for name, make in DAMAGED.items():
        make(data / "car" / name)
    with pytest.raises(SystemExit, match="fit: image not readable: .* got 4, .*Error: ") as one:
        main([*arguments(data, "--cross-fit"), *QUICK])
    assert "\n" not in str(one.value)
    main([*arguments(data, "--cross-fit", "--max-unreadable", "0.2"), *QUICK])
    said = capsys.readouterr().out
    assert "4 left out, image not readable (a\\nb.jpg, damaged.png" in said
    assert {row["n_test"] for row in table(data)} == {"36"}


def test_names_that_are_not_utf_8_work_to_the_end(tmp_path):
    """Of an image, a broken one, a class, and the output folder, on a terminal of ASCII alone."""
    root = os.fsencode(folder(tmp_path / "data"))
    os.rename(root + b"/car/00.png", root + b"/car/caf\xe9.png")
    os.rename(root + b"/cyclist", root + b"/$v\xe9lo$^{")
    with open(root + b"/car/kapu\xfe.png", "wb"):
        pass
    options = arguments(tmp_path / "data", "--cross-fit", "--thumbnails", "--max-unreadable", ".1")
    options[options.index("cyclist")] = os.fsdecode(b"$v\xe9lo$^{")
    options[options.index("--out") + 1] = os.fsdecode(os.fsencode(tmp_path) + b"/out\xe9")
    program = str(Path(sys.executable).with_name("solo-ood"))
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([program, *options, *QUICK], capture_output=True, env=ascii_only)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.decode("ascii")
    assert "could not be drawn" not in said and "kapu\\xfe.png" in said
    out = os.fsencode(tmp_path) + b"/out\xe9"
    kinds = {os.path.splitext(name)[1] for name in os.listdir(out)}
    assert kinds == {b".png", b".jpg", b".csv", b".json", b".md", b".html"}
    for name in (b"/table.csv", b"/table.json", b"/table.md", b"/report.html"):
        with open(out + name, encoding="utf-8") as file:
            text = file.read()
        assert "v\\xe9lo" in text.replace("\\\\", "\\")


def test_the_home_folder_may_be_written_as_in_a_shell(tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.setenv("HOME", str(tmp_path))
    folder(tmp_path / "data")
    network = make_embedder("resnet18:random").network
    torch.save(network.state_dict(), tmp_path / "w.pth")
    (tmp_path / "boxes.csv").write_text(
        "path,left,top,right,bottom\n~/data/cyclist/00.png,0,0,8,8\n"
    )
    at_home = [
        *("measure", "~/data", "--cross-fit", "--rare", "cyclist"),
        *("--detectors", "exemplar-regions"),
        *("--out", "~/out", "--cache", "~/cache", "--boxes", "~/boxes.csv", *QUICK[:-1]),
    ]
    main([*at_home, "resnet18:~/w.pth"])
    assert {"out", "cache"} <= {path.name for path in tmp_path.iterdir()}
    assert "100 of 100 tensors" in capsys.readouterr().out


def test_paths_of_a_config_may_begin_at_home(tmp_path, monkeypatch, compose):
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = compose("data.train_path='~/train'", "data.val_path=null", "checkpoint.dir='~/runs'")
    expand_home(cfg)
    assert (cfg.data.train_path, cfg.data.val_path) == (f"{tmp_path}/train", None)
    assert cfg.checkpoint.dir == f"{tmp_path}/runs"


def test_training_says_what_it_sees_otherwise(tmp_path):
    turned, clear = Image.Exif(), Image.new("RGBA", (64, 48))
    turned[ExifTags.Base.Orientation] = 6
    data = folder(tmp_path / "data")
    assert show_all_bits(ImageFolder(data)) == []
    Image.open(data / "car" / "00.png").save(data / "car" / "00.png", exif=turned)
    clear.save(data / "car" / "01.png")
    said = "\n".join(show_all_bits(ImageFolder(data)))
    assert "training images: 1 of 36 images are stored turned, and stay so" in said
    assert "1 of 36 images are transparent: what is below counts" in said


@pytest.mark.parametrize(("enabled", "labels"), [(True, True), (False, True), (True, False)])
def test_training_sees_16_bit_grey_as_pictures(
    tmp_path, compose, build, loader, trainer, capsys, enabled, labels
):
    data = folder(tmp_path / "data", deep)
    paths = [f"data.train_path={data}", f"data.val_path={data}"]
    if not labels:
        flat = tmp_path / "flat"
        flat.mkdir()
        for path in data.glob("*/*.png"):
            path.rename(flat / f"{path.parent.name}-{path.name}")
        paths = [f"data.train_path={flat}", "data.val_path=null", "data.no_labels=True"]
    cfg = compose(*paths, f"++method_kwargs.ood.enabled={str(enabled).lower()}", *AT_ONCE)
    spreads = []

    class Seen(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            spreads.extend(float(crop.std()) for crop in batch[1][0])

    train = loader(cfg)
    trainer(max_steps=2, callbacks=[Seen()]).fit(build(cfg), train, val_dataloaders=None)
    assert np.median(spreads) > 0.01 and len(spreads) == 16  # 0 while all of them were white
    assert "training images: 36 of 36 images have more than 8 bits" in capsys.readouterr().err
