"""``solo-ood evaluate`` on a run of a user's own data, on either host."""

from __future__ import annotations

import csv
import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from repository import NO_WIDTH, ROOT
from user_run import COUNTS, pictures, train

from solo_ood.embedding.options import ExtractConfig
from solo_ood.evaluation.evaluate import evaluate
from solo_ood.evaluation.options import EvaluateOptions
from solo_ood.evaluation.probes import knn, linear_probe

QUICK = {"embedding": ExtractConfig(batch_size=64, num_workers=0, accelerator="cpu")}
_RUN = []


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("own data")
    pictures(root / "train", COUNTS)
    pictures(root / "val", dict.fromkeys(COUNTS, 5), seed=1)
    return root


@pytest.fixture
def run(data, compose, build, loader, trainer, tmp_path_factory):
    """One run for all tests of this module; fixtures of the host are of a narrower scope."""
    if not _RUN:
        folder = tmp_path_factory.mktemp("user run")
        paths = [f"data.train_path='{data / 'train'}'", f"data.val_path='{data / 'val'}'"]
        mean = ["++augmentations.0.mean=[0.4,0.5,0.6]", "++augmentations.0.std=[0.2,0.2,0.25]"]
        _RUN.append(train(folder, compose, build, loader, trainer, NO_WIDTH, *paths, *mean))
    return _RUN[0]


def test_the_runs_own_data_teacher_and_student_and_groups(run, data, tmp_path):
    shown = []
    figures = evaluate(EvaluateOptions(run, draws=2, out=tmp_path, **QUICK), shown.append)
    # 1% is one image of each class; of at most 24 images a class 20-shot is still a part.
    assert [(one.reference, one.method, one.weights) for one in figures] == [
        (reference, method, weights)
        for reference in ("held-out", "train", "balanced", "1%", "20-shot")
        for weights in ("teacher", "student")
        for method in ("knn", "linear")
    ]
    for one in figures:
        assert list(one.accuracy) == ["All", "Many", "Medium", "Few", "Std"]
        share = 0.5 * one.accuracy["Many"] + 0.25 * (one.accuracy["Medium"] + one.accuracy["Few"])
        assert one.accuracy["All"] == pytest.approx(share, abs=1e-3)  # 2 + 1 + 1 classes
        by_class = {row["class"]: row["accuracy"] for row in one.classes}
        assert np.mean(list(by_class.values())) == pytest.approx(one.accuracy["All"])
        assert by_class["cyclist"] == pytest.approx(one.accuracy["Few"])
        assert {row["class"]: row["train_images"] for row in one.classes} == COUNTS
        assert {row["val_images"] for row in one.classes} == {5}
        assert 0 <= one.auroc <= 1 and one.intervals.keys() == {*one.accuracy, "AUROC"}
        about = one.about
        assert about["train"] == {"path": str(data / "train"), "images": 50, "classes": 4}
        assert about["val"] == {"path": str(data / "val"), "images": 20, "classes": 4}
        assert about["tail"] == about["train"] and about["held_out"] is None
        assert about["image_size"] == 32 and about["epoch"] == 1
        assert about["checkpoint"].endswith(".ckpt")
    texts = list(dict.fromkeys(one.about["reference"] for one in figures))
    assert texts == [
        "held-out: 16 images of --val, 4 a class, 5 folds",
        "train: 50 images of --train, 4 to 24 a class",
        "balanced: 16 images of --train, 4 a class, mean of 2 draws",
        "1%: 4 images of --train, 1 a class, mean of 2 draws",
        "20-shot: 46 images of --train, 4 to 20 a class, mean of 2 draws",
    ]
    assert f"val       20 images of 4 classes in {data / 'val'}" in shown
    assert "held-out  val, by folds" in shown
    assert all(text in shown[-1].splitlines() for text in texts)
    assert max(len(line) for line in shown[-1].splitlines() if "written: " not in line) <= 80
    for name in ("json", "csv", "md", "png"):
        assert f"written: {tmp_path / 'evaluation'}.{name}" in shown[-1].splitlines()
    known = json.loads((tmp_path / "evaluation.json").read_text())["figures"]
    assert known[1]["about"]["C"] and known[0]["about"]["k"] == 20
    rows = list(csv.DictReader((tmp_path / "evaluation.csv").open()))
    assert len(rows) == 20 and all(row["val_path"] == str(data / "val") for row in rows)
    assert float(rows[0]["Few_low"]) <= float(rows[0]["Few"]) <= float(rows[0]["Few_high"])
    rows = list(csv.DictReader((tmp_path / "evaluation_classes.csv").open()))
    assert len(rows) == 80 and {row["class"] for row in rows} == COUNTS.keys()
    text = (tmp_path / "evaluation.md").read_text()
    assert f"20 images of 4 classes in {data / 'val'}" in text
    assert all(f"- reference {one}" in text for one in texts)
    assert Image.open(tmp_path / "evaluation.png").size[0] > 500


def test_every_image_is_embedded_once_whatever_the_references(run, data, tmp_path, monkeypatch):
    from solo_ood.embedding.embedder import Embedder

    seen = []
    forward = Embedder.forward
    monkeypatch.setattr(
        Embedder, "forward", lambda self, x: seen.append(len(x)) or forward(self, x)
    )
    held_out = pictures(tmp_path / "held out", dict.fromkeys(COUNTS, 3), seed=2)
    cache = replace(QUICK["embedding"], cache=tmp_path / "cache")
    options = EvaluateOptions(
        run, held_out=held_out, weights=("teacher",), methods=("knn",), draws=3,
        out=tmp_path / "out", embedding=cache,
    )  # fmt: skip
    figures = evaluate(options, lambda text: None)
    embedded = sum(n for n in seen if n > 1)  # one alone is to learn the shape
    assert len(figures) == 5 and embedded == 50 + 20 + 12
    first = figures[0].about
    assert first["reference"] == "held-out: 12 images of --held-out, 3 a class"
    assert first["held_out"] == {"path": str(held_out), "images": 12, "classes": 4}
    seen.clear()
    assert evaluate(options, lambda text: None) == figures  # the same seed draws the same
    assert set(seen) == {1}  # from the cache


def test_crop_size_and_normalisation_are_those_of_the_run(run):
    from solo_ood.embedding.networks import make_embedder
    from solo_ood.host.run_folder import find_run

    files = find_run(run)
    assert files.crop_size == 32
    embedder = make_embedder(f"{files.checkpoint}:teacher", "pooled")
    assert embedder.mean == (0.4, 0.5, 0.6) and embedder.std == (0.2, 0.2, 0.25)


def test_options_choose_the_data_and_the_networks(run, data, tmp_path):
    few = pictures(tmp_path / "few", {"cyclist": 3, "dog": 2}, seed=2)
    figures = evaluate(
        EvaluateOptions(
            run / next(run.glob("*.ckpt")).name, val=few, weights=["teacher"], methods=["knn"],
            references=["train"], k=[1, 5], out=tmp_path, **QUICK,
        ),
        lambda text: None,
    )  # fmt: skip
    assert [one.about["k"] for one in figures] == [1, 5]
    assert figures[0].about["val"] == {"path": str(few), "images": 5, "classes": 2}
    # Of classes that come first, third, ... in the reference: the ids are the reference's.
    assert list(figures[0].accuracy) == ["All", "Medium", "Few"]


@pytest.mark.parametrize("method", ["knn", "linear"])
def test_the_figures_are_of_the_images(method, run, data, tmp_path):
    """On its own reference a 1-NN is always right, and the command says that this is no test."""
    shown = []
    copies = tmp_path / "same files"  # under other names
    for path in (data / "train").glob("*/*.jpg"):
        (copies / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copies / path.parent.name / path.name).symlink_to(path)
    options = EvaluateOptions(
        run, val=copies, methods=[method], references=["train"], k=[1], out=tmp_path, **QUICK
    )
    figures = evaluate(options, shown.append)
    assert "note: --train and --val share images: the figures are too good" in shown
    assert all(one.accuracy["All"] == 100 for one in figures if method == "knn")
    assert all(one.accuracy["All"] > 60 for one in figures)


def test_what_does_not_fit_is_one_clear_error(run, data, tmp_path):
    other = pictures(tmp_path / "other", {"car": 2, "truck": 2})
    single = pictures(tmp_path / "single", {"car": 3})
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a.jpg").write_bytes((data / "train/car/00.jpg").read_bytes())
    blocked = tmp_path / "blocked"
    (blocked / "evaluation.md").mkdir(parents=True)
    several = tmp_path / "several.csv"
    rows = [f"{data / 'train/car'}/{name}" for name in ("00.jpg,car", "00.jpg,bus", "01.jpg,bus")]
    rows.append(f"{data / 'train/dog/00.jpg'},dog")
    several.write_text("\n".join(["path,label", *rows]) + "\n")
    cases = [
        ({"val": other}, "--val .*no classes but those of --train, got 1 others, such as truck"),
        ({"tail": other}, "--tail .*truck"),
        ({"tail": single}, "--tail .*images of every class of --train"),
        ({"train": single, "val": single}, "--train .*at least 2 classes, got one class"),
        ({"val": flat}, "expected .*class folders"),
        ({"val": tmp_path / "gone"}, "--val: expected a folder .*got no folder"),
        ({"run": tmp_path}, "run folder: expected a .ckpt and args.json"),
        ({"run": run.parent}, "the runs in it are 0"),
        ({"out": flat / "a.jpg"}, "--out: expected a folder that can be written, got .*a.jpg"),
        ({"out": flat / "a.jpg/b"}, "--out: expected a folder that can be written"),
        ({"out": blocked}, "--out: expected files that can be written over, got .*evaluation.md"),
        ({"train": several}, "--train .*expected images of one label each, got 1 of 3 with"),
        ({"held_out": other}, "--held-out .*no classes but those of --train, got 1 others"),
        ({"held_out": single}, "--held-out .*images of every class of --val, got none of 3"),
        ({"val": single, "references": ("held-out",)}, "--references: expected one that the data"),
        # Before the data, which are gone, are looked for.
        (
            {"val": tmp_path / "gone", "embedding": ExtractConfig(accelerator="foo")},
            "--accelerator, --devices: expected what there is .*got foo",
        ),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            evaluate(EvaluateOptions(**{"run": run, **QUICK, **given}), print)
    assert not (run / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"no_labels": True}, "--train: .*got a run without labels"),
        ({"dataset": "cifar10"}, "--train: .*got a run on cifar10, which is no image folder"),
        ({"val_path": None}, "--val: .*got the run has none"),
    ],
)
def test_a_run_without_labelled_images_asks_for_them(change, message, run, data, tmp_path):
    args = json.loads((run / "args.json").read_text())
    args.get("config", args)["data"].update(change)
    (tmp_path / "args.json").write_text(json.dumps(args))
    (tmp_path / "x.ckpt").symlink_to(next(run.glob("*.ckpt")))
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateOptions(tmp_path, **QUICK), print)
    if change.get("no_labels"):
        some = {"val": data / "val", "methods": ["knn"], **QUICK}
        figures = evaluate(EvaluateOptions(tmp_path, references=["held-out"], **some), print)
        assert list(figures[0].accuracy) == ["All"]  # nothing says which classes are rare
        assert not (tmp_path / "evaluation.png").exists()  # nor how many images they have
        figures = evaluate(EvaluateOptions(tmp_path, data / "train", **some), print)
        assert "Few" in figures[0].accuracy and (tmp_path / "evaluation.png").exists()
        equal = pictures(tmp_path / "equal", dict.fromkeys(COUNTS, 3))
        shown = []
        figures = evaluate(EvaluateOptions(tmp_path, equal, **some), shown.append)
        assert any("classes of" in text and "as many images" in text for text in shown)
        assert [one.reference for one in figures[::2]] == ["held-out", "train", "1%"]
        assert "note: no reference balanced: it would be all of --train once more" in shown


def test_knn_is_the_hosts(registered):
    """The same features, the host's own classifier; k above N, and a temperature of its own."""
    from solo.utils.knn import WeightedKNNClassifier

    from solo_ood.host.compat import fix_knn_metric

    fix_knn_metric()
    rng = np.random.default_rng(0)
    targets, asked = rng.integers(0, 5, 90), np.arange(60) % 5
    centres = rng.normal(size=(5, 16))
    reference = (centres[targets] + 2 * rng.normal(size=(90, 16))).astype(np.float32)
    feats = (centres[asked] + 2 * rng.normal(size=(60, 16))).astype(np.float32)
    for k, temperature in ((20, 0.07), (1, 0.07), (200, 0.5)):
        metric = WeightedKNNClassifier(k=k, T=temperature, distance_fx="cosine")
        known, unknown = (
            torch.nn.functional.normalize(torch.from_numpy(x)) for x in (reference, feats)
        )
        metric.update(train_features=known, train_targets=torch.from_numpy(targets))
        metric.update(test_features=unknown, test_targets=torch.from_numpy(asked))
        expected = float(metric.compute()[0])
        votes = knn(reference, targets, feats, k, temperature, chunk=1000)
        found = votes.predictions
        assert votes.shares.sum(axis=1) == pytest.approx(1)
        assert (votes.shares.argmax(axis=1) == found).all()
        assert 100 * (found == asked).mean() == pytest.approx(expected)
        assert 20 < expected < 95


def test_knn_with_a_tiny_temperature_takes_the_nearest():
    reference = np.array([[1, 0], [0, 1], [0.1, 1]], dtype=np.float32)
    feats = np.array([[0.0, 2.0]], dtype=np.float32)
    assert knn(reference, np.array([0, 1, 0]), feats, 3, 1e-4).predictions.tolist() == [1]


def test_the_linear_probe_agrees_with_the_hosts_linear_evaluation(registered, trainer):
    """The same features through the host's own ``LinearModel`` and Lightning's Trainer."""
    from omegaconf import OmegaConf
    from solo.methods.linear import LinearModel
    from torch.utils.data import DataLoader, TensorDataset

    from solo_ood.host import installed

    rng = np.random.default_rng(0)
    targets, asked = np.arange(600) % 6, np.arange(600) % 6
    centres = rng.normal(size=(6, 12))
    reference, feats = (
        (centres[y] + 1.3 * rng.normal(size=(len(y), 12))).astype(np.float32)
        for y in (targets, asked)
    )
    sets = [
        TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        for x, y in ((reference, targets), (feats, asked))
    ]
    torch.manual_seed(0)
    frozen = torch.nn.Identity()
    frozen.num_features = 12
    if installed.generation() == "checkout":
        cfg = OmegaConf.create(
            {
                "data": {"num_classes": 6}, "max_epochs": 100, "finetune": False,
                "optimizer": {
                    "name": "sgd", "batch_size": 600, "lr": 0.5, "weight_decay": 0,
                    "kwargs": {"momentum": 0.9},
                },
                "scheduler": {"name": "none"}, "performance": {"disable_channel_last": True},
            }
        )  # fmt: skip
        model = LinearModel(frozen, cfg)
    else:
        model = LinearModel(
            frozen, 6, max_epochs=100, batch_size=600, optimizer="sgd", lars=False, lr=0.5,
            weight_decay=0, exclude_bias_n_norm=False, extra_optimizer_args={"momentum": 0.9},
            scheduler="none",
        )  # fmt: skip
    fit = trainer(max_epochs=100, check_val_every_n_epoch=100, num_sanity_val_steps=0)
    fit.fit(model, DataLoader(sets[0], 600), DataLoader(sets[1], 600))
    theirs = float(fit.callback_metrics["val_acc1"])
    with torch.no_grad():
        predicted = model(torch.from_numpy(feats))["logits"].argmax(dim=1).numpy()
    assert 60 < theirs < 95 and 100 * (predicted == asked).mean() == pytest.approx(theirs)
    same = linear_probe(reference, targets, feats, cs=(100,))  # as good as no penalty, like theirs
    assert (same.predictions == predicted).mean() > 0.97
    probe = linear_probe(reference, targets, feats)
    for votes in (same, probe):
        assert 100 * (votes.predictions == asked).mean() == pytest.approx(theirs, abs=1.5)
    assert probe.shares.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_linear_probe_converges_whatever_the_scale_and_chooses_its_penalty():
    rng = np.random.default_rng(0)
    targets, asked = np.arange(200) % 4, np.arange(80) % 4
    centres = rng.normal(size=(4, 32))
    reference, feats = (centres[y] + 1.5 * rng.normal(size=(len(y), 32)) for y in (targets, asked))
    fits = []
    probe = linear_probe(reference, targets, feats, tell=lambda: fits.append(1))
    assert probe.converged and len(fits) == 8
    large = linear_probe(1000 * reference + 7, targets, 1000 * feats + 7)
    assert large.c == probe.c and (large.predictions == probe.predictions).mean() > 0.98
    assert (probe.predictions == asked).mean() > 0.8
    noise = np.concatenate([reference, 3 * rng.normal(size=(200, 300))], axis=1)
    test = np.concatenate([feats, 3 * rng.normal(size=(80, 300))], axis=1)
    assert linear_probe(noise, targets, test).c < 1  # a weak penalty would fit the noise


def test_linear_probe_of_classes_with_one_image_each():
    reference = np.eye(3)
    assert linear_probe(reference, np.arange(3), reference).predictions.tolist() == [0, 1, 2]


def test_the_command(run, data, tmp_path, capsys):
    from solo_ood.cli import main

    main(["evaluate", str(run), "--methods", "knn", "--weights", "student", "--out",
          str(tmp_path), "--num-workers", "0", "--accelerator", "cpu",
          "--references", "train", "1%"])  # fmt: skip
    out = capsys.readouterr().out
    numbers = r"( +[\d.]+){6}"
    found = re.findall(rf"k-NN, student{numbers} +k = 20, T = 0.07\n  95 %: \+-{numbers}", out)
    assert len(found) == 2
    with pytest.raises(SystemExit, match="Error: --val: expected"):
        main(["evaluate", str(run), "--val", str(tmp_path / "gone")])


def test_remedy_names_the_option_of_the_program_that_raised(run, data, tmp_path):
    """Only the specs of measure end in ``:teacher``."""
    from solo_ood.cli import main

    content = torch.load(next(run.glob("*.ckpt")), weights_only=True)
    content["state_dict"] = {  # the student lacks a block
        key: value
        for key, value in content["state_dict"].items()
        if "layer4" not in key or key.startswith("momentum_")
    }
    torch.save(content, tmp_path / "x.ckpt")
    (tmp_path / "args.json").write_text((run / "args.json").read_text())
    path, spec = str(tmp_path / "x.ckpt"), f"{tmp_path / 'x.ckpt'}:student"
    student = ["--weights", "student"]
    for command, how in (
        (["evaluate", path, *student], "--weights teacher"),
        (["export", path, str(tmp_path / "out"), *student], "--weights teacher"),
        (["measure", str(data), "--embedder", spec, "--out", str(tmp_path / "out")], ":teacher"),
    ):
        with pytest.raises(SystemExit, match=f"Or choose the file's teacher with {how}\\."):
            main(command)


def test_figures_of_other_settings_data_and_checkpoints_stay(tmp_path):
    from solo_ood.evaluation.figures import Figure, saved
    from solo_ood.evaluation.tables import write

    def figure(all_, method="knn", weights="teacher", train="a", checkpoint="1.ckpt", **settings):
        about = {name: {"path": train, "images": 9, "classes": 3} for name in ("train", "val")}
        about |= {"checkpoint": checkpoint, "epoch": 1, "tail": None, "image_size": 32}
        reference = settings.pop("reference", "train")
        return Figure(method, weights, {"All": all_}, about | settings, reference)

    def written(*new):
        write(new, tmp_path, {})
        assert len(list(csv.DictReader((tmp_path / "evaluation.csv").open()))) == len(found())
        return found()

    def found():
        return [one.accuracy["All"] for one in saved(tmp_path / "evaluation.json")]

    assert written(figure(1.0, k=5), figure(2.0, "linear", C=0.1)) == [1, 2]
    assert written(figure(3.0, k=20)) == [3, 1, 2]
    assert written(figure(4.0, "linear", C=10.0), figure(5.0, k=5)) == [4, 5, 3]  # measured again
    assert written(figure(6.0, k=5, train="b", notes="too good")) == [6, 4, 5, 3]
    assert written(figure(7.0, k=5, checkpoint="2.ckpt")) == [7, 6, 4, 5, 3]
    assert written(figure(9.0, k=5, reference="1%")) == [9, 7, 6, 4, 5, 3]
    assert written(figure(7.0, k=5, checkpoint="2.ckpt")) == [7, 9, 6, 4, 5, 3]
    text = (tmp_path / "evaluation.md").read_text()
    assert text.count("- checkpoint: 1.ckpt") == 2 and text.count("- checkpoint: 2.ckpt") == 1
    assert text.count("- note: too good") == 1
    for damaged in ("", "[1]", '{"figures": [{"method": "knn", "All": "x"}]}', '{"figures": 3}'):
        (tmp_path / "evaluation.json").write_text(damaged)
        assert written(figure(8.0)) == [8]


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_damaged_files_of_a_run_are_one_clear_line(command, run, tmp_path):
    from solo_ood.cli import main

    content = torch.load(next(run.glob("*.ckpt")), weights_only=True)
    args = json.loads((run / "args.json").read_text())
    path = tmp_path / "run"
    path.mkdir()

    def told(changes, **config):
        torch.save({**content, **changes}, path / "x.ckpt")
        own = json.loads(json.dumps(args))
        own.get("config", own).update(config)
        (path / "args.json").write_text(json.dumps(own))
        with pytest.raises(SystemExit) as caught:
            main([command, str(path)])
        return str(caught.value)

    assert told({"epoch": "x"}).startswith("Error: checkpoint x.ckpt, epoch: expected a whole")
    assert "global_step: expected a whole number, got [1]" in told({"global_step": [1]})
    assert "args.json, checkpoint.dir: expected a path, got 5" in told({}, checkpoint={"dir": 5})
    if command == "evaluate":
        assert "x.ckpt: expected a state_dict, got a list" in told({"state_dict": [1]})
        for given in (5, [5], [{}], [{"crop_size": "x"}]):
            assert "augmentations: expected a list whose" in told({}, augmentations=given)


@pytest.mark.parametrize("text", ["-1", str(2**32), "x", "1.5"])
def test_a_seed_that_no_generator_takes_is_refused_before_any_work(text):
    from solo_ood.cli import main

    for command in (["evaluate", "run"], ["measure", "data", "--embedder", "resnet18:random"]):
        with pytest.raises(SystemExit) as caught:
            main([*command, f"--seed={text}"])
        expected = f"--seed: expected a whole number from 0 to 4294967295, got {text}"
        assert expected in str(caught.value)


def test_home_folders_in_the_options():
    from solo_ood.cli import parse

    given = ["evaluate", "~/run"]
    for name in ("train", "val", "held-out", "tail", "out", "cache"):
        given += [f"--{name}", f"~/{name}"]
    options = parse(given)[1]
    for name in ("run", "train", "val", "tail", "out"):
        assert getattr(options, name) == Path.home() / name
    assert options.held_out == Path.home() / "held-out"
    assert options.embedding.folder == Path.home() / "cache"


def test_bad_arguments_of_main_knn_are_one_clear_line(run, data, tmp_path, monkeypatch, capsys):
    from solo_ood.host import installed

    if installed.generation() != "release":
        pytest.skip("scripts/ is for solo-learn 1.0.2; a checkout has its own scripts")

    def told(*arguments):
        given = ["main_knn.py", "--pretrained_checkpoint_dir", str(run), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(ROOT / "scripts/main_knn.py"), run_name="__main__")
        return f"{caught.value} {capsys.readouterr().err}"

    assert "--k: expected a whole number of at least 1, got 0" in told("--k", 0)
    assert "--batch_size: expected a whole number of at least 1, got 0" in told("--batch_size", 0)
    assert "--temperature: expected a number above 0, got 0" in told("--temperature", 0)
    assert "--distance_function: expected one of cosine, euclidean, got 'foo'" in told(
        "--distance_function", "foo"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"got {tmp_path}/gone" in told("--val_data_path", "~/gone")
    litter = pictures(tmp_path / "litter", COUNTS)
    (litter / "empty").mkdir()
    own = {name: data / name for name in ("train", "val")} | {"tail": data / "train"}
    for name in own:
        given = [(f"--{one}_data_path", path) for one, path in (own | {name: litter}).items()]
        said = told(*[part for pair in given for part in pair])
        assert re.match(f"Error: --{name}_data_path: expected .*empty", said), said
    assert not (run / "knn.json").exists()
