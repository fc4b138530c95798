"""What a run is refused for before any work: one line, on either host; and what it is not."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from repository import ROOT
from warm_host import warm_host

from solo_ood.errors import UserError
from solo_ood.settings.schema import OODConfig, ThresholdConfig, samples_before_first_flag
from solo_ood.training import preflight

OOD = "++method_kwargs.ood."
QUICK = ("data.num_workers=0", "augmentations.1.num_crops=0", "augmentations.1.crop_size=32",
         "+enable_progress_bar=False", f"{OOD}start=0", f"{OOD}scorer.min_samples=8",
         f"{OOD}threshold.n=20", "accelerator=cpu")  # fmt: skip


def write(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (number, 32, 32, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of 40 images: in classes, in one folder, with strange files, with an empty class."""
    root = tmp_path_factory.mktemp("data")
    for name in ("good", "stray", "empty"):
        for label in "ab":
            write(root / name / label, 20)
    (root / "stray" / ".DS_Store").write_text("x")
    (root / "empty" / "c").mkdir()
    write(root / "flat", 40)
    (write(root / "mixed", 40) / ".DS_Store").write_text("x")
    (root / "nothing").mkdir()
    return root


@pytest.fixture
def checked(registered, data):
    """Compose a config of these data and check it, as both hosts do first."""

    def check(*overrides, train="good", val="good"):
        paths = (f"data.train_path={data / train}", f"data.val_path={data / val}")
        # The host itself reads the config here: only what comes before it is of interest.
        cfg = _composed(*paths, "optimizer.batch_size=8", *QUICK[:2], *overrides)
        preflight.accept_flat_folder(cfg)
        preflight.check(cfg)
        return cfg

    return check


def _composed(*overrides):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    configs = ROOT / "configs"
    with initialize_config_dir(str(configs), version_base="1.2"):
        cfg = hydra_compose("dino_ood", list(overrides))
    OmegaConf.set_struct(cfg, False)
    return cfg


SMALL = (f"{OOD}scorer.min_samples=8", f"{OOD}threshold.n=20")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.batch_size=64"], r"optimizer\.batch_size: .*the 40 training samples fill"),
        (["optimizer.batch_size=32", "devices=2"], "40 training samples fill in each of 2 proc"),
        (["optimizer.batch_size=0"], r"optimizer\.batch_size: .*at least 1, got 0"),
        (["optimizer.batch_size=8.5"], r"optimizer\.batch_size: .*a whole number"),
        (["max_epochs=0"], "max_epochs: expected more than 0"),
        (["+max_steps=0"], "max_steps: expected more than 0"),
        (["+limit_train_batches=0"], "limit_train_batches: expected more than 0"),
        (["+limit_train_batches=0.1"], "limit_train_batches: expected at least 1 of the 5"),
        (["max_epochs=abc"], "max_epochs: expected a whole number .*got 'abc'"),
        (["+accumulate_grad_batches=1.5"], "accumulate_grad_batches: expected a whole number"),
        (["data.train_path=123"], r"data\.train_path: expected a path, got 123\. Write .*\./123"),
        (["accelerator=gpuu"], "Unknown accelerator: .*Did you mean 'gpu'"),
        (["accelerator=cpu", "devices=[0]"], r"devices: expected a number of .*got \[0\]"),
        (["accelerator=cpu", "devices='0,1'"], "devices: expected a number of"),
        (["precision=17"], "Trainer: expected what it takes .*Precision 17 is invalid"),
        (["+max_time=soon"], "Trainer: .*not a valid duration"),
        (["backbone.name=resnet81"], r"Unknown backbone\.name: .*Did you mean 'resnet18'"),
        (["optimizer.name=adamm"], "Did you mean 'adam'"),
        (["scheduler.name=cosin"], "Did you mean 'cosine'"),
        (["data.dataset=cifar11"], "Did you mean 'cifar10'"),
        (["+backbone.kwargs.in_chans=1"], "in_chans: expected 3: the host reads .* as RGB"),
        ([f"checkpoint.dir={__file__}"], r"checkpoint\.dir: expected a folder that can be written"),
        (["name=a/b"], "name: expected part of a file's name: no /"),
        (["max_epochs=-1", "+max_time=00:01:00:00"], "max_epochs: expected a number: DINO's"),
        (
            [f"{OOD}scorer.{x}=40" for x in ("k", "n_reference", "min_samples")],
            r"ood\.scorer\.k: expected at most 39: of the 40 rows .* of 40 training samples",
        ),
        (["max_epochs=2"], r"samples of the run: expected at least 764 .*got 64 \(10 batches"),
    ],
)
def test_what_cannot_train_is_one_line(overrides, said, checked):
    with pytest.raises(UserError, match=said):
        checked(*overrides)


@pytest.fixture(scope="module")
def runnable(registered, data):
    """A config that passes, to be changed."""
    paths = (f"data.{key}_path={data / 'good'}" for key in ("train", "val"))
    cfg = _composed(*paths, "optimizer.batch_size=8", *QUICK)
    preflight.check(cfg)
    return cfg


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("optimizer.lr", float("nan"), "expected a number of at least 0, got nan"),
        ("optimizer.lr", None, "expected a value, got null"),
        ("optimizer.weight_decay", "-1e-4", "expected a number of at least 0, got '-1e-4'"),
        ("scheduler.name", None, "expected a value, got null"),
        ("data.num_workers", None, "expected a whole number of at least 0, got null"),
        ("data.num_workers", -1, "expected a whole number of at least 0, got -1"),
        ("max_steps", None, "expected a whole number of at least -1, got null"),
        ("checkpoint.frequency", None, "expected a whole number of at least 1, got null"),
        ("check_val_every_n_epoch", 0, "expected a whole number of at least 1, got 0"),
        ("log_every_n_steps", "abc", "expected a whole number of at least 0, got 'abc'"),
        ("method_kwargs.num_prototypes", 0, "expected a whole number of at least 1, got 0"),
        ("method_kwargs.warmup_teacher_temperature_epochs", "abc", "at least 0, got 'abc'"),
        ("momentum.base_tau", 2, "expected a number from 0 to 1, got 2"),
        ("data.fraction", "abc", "expected a number from -1 to 1, got 'abc'"),
        ("seed", 2**32, "expected a number from 0 to 4294967295, got 4294967296"),
        ("auto_resume.enabled", "no", "expected true or false, got 'no'"),
        ("data.no_labels", "off", "expected true or false, got 'off'"),
        ("augmentations", [], "expected a list of pipelines, .*, got \\[\\]"),
        ("augmentations.0.crop_size", 0, "expected a whole number of at least 1, got 0"),
        ("augmentations.1.num_crops", "x", "expected a whole number of at least 0, got 'x'"),
        ("resume_from_checkpoint", "no.ckpt", "expected a checkpoint, got no file no.ckpt"),
        ("checkpoint.dir", __file__, "expected a folder that can be written, got .*test_pre"),
        ("devices", None, "Trainer: expected what it takes on this machine"),
        ("method_kwargs.odd", {"start": 0}, "expected method_kwargs.ood, got a block .*odd"),
        ("method_kwargs.OOD", {"start": 0}, "expected method_kwargs.ood, got a block .*OOD"),
        ("ood", {"start": 0}, "expected method_kwargs.ood, got a block ood"),
        ("method_kwargs.ood.queue.max_replays", 4, "replay: expected rows in .* got at most 80%"),
    ],
)
def test_a_value_that_the_host_would_stumble_over_is_one_line(key, value, said, runnable):
    cfg = runnable.copy()
    OmegaConf.update(cfg, key, value, merge=False)
    named = (
        "" if said.startswith(("Trainer", "expected method_kwargs", "replay")) else f"^{key}: .*"
    )
    with pytest.raises(UserError, match=named + said):
        preflight.check(cfg)


def test_other_methods_may_have_lists_of_prototypes(runnable):
    cfg = runnable.copy()
    OmegaConf.update(cfg, "method", "deepclusterv2")
    OmegaConf.update(cfg, "method_kwargs.num_prototypes", [30, 30], merge=False)
    preflight.check(cfg)


@pytest.mark.parametrize("key", ["optimizer.lr", "backbone", "scheduler.name", "data.num_workers"])
def test_a_setting_that_is_not_there_is_one_line(key, runnable):
    cfg = runnable.copy()
    section, _, name = key.rpartition(".")
    del (OmegaConf.select(cfg, section) if section else cfg)[name]
    with pytest.raises(UserError, match=f"^{key}.*: expected a value, got null. Set"):
        preflight.check(cfg)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_an_accelerator_that_is_not_there_is_one_line(accelerator, checked):
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    lacking = not (any(there.values()) if accelerator == "gpu" else there[accelerator])
    expected = pytest.raises(UserError, match="accelerator: expected one that this machine has")
    with expected if lacking else contextlib.nullcontext():
        checked(f"accelerator={accelerator}", *SMALL)


@pytest.mark.parametrize(
    ("kwargs", "overrides", "said"),
    [
        ({"train": "nothing"}, [], r"data\.train_path: expected a folder of each class"),
        ({"val": "flat"}, [], r"data\.val_path: expected a folder of each class"),
        ({"train": "empty"}, [], "images for every class, got no images in c, in"),
        ({"train": "mixed"}, ["data.no_labels=True"], "nothing else: .*got .DS_Store in"),
        ({"train": "good"}, ["data.no_labels=True"], "nothing else: .*got a, b in"),
    ],
)
def test_folders_that_the_host_cannot_read_are_one_line(kwargs, overrides, said, checked):
    with pytest.raises(UserError, match=said):
        checked(*overrides, **kwargs)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+fast_dev_run=True"],
        ["max_epochs=2", f"{OOD}enabled=false"],
        ["+max_time=00:01:00:00", *SMALL],
        ["+accumulate_grad_batches=null", "+limit_train_batches=null", *SMALL],
        ["max_epochs=500", "+max_steps=200"],
        ["max_epochs=4", "+overfit_batches=3", *SMALL],
        ["max_epochs=4", "+limit_train_batches=0.5", *SMALL],
        ["max_epochs=8", "+accumulate_grad_batches=3", *SMALL],
        ["data.val_path=null", *SMALL],
        ["optimizer.lr=1e-4", "optimizer.weight_decay=0", *SMALL],
    ],
)
def test_what_can_train_is_not_refused(overrides, checked):
    checked(*overrides)


def test_stray_files_beside_class_folders_are_no_matter(checked):
    checked(*SMALL, train="stray")


def test_as_many_samples_as_the_error_names_are_enough(checked):
    samples = samples_before_first_flag(OODConfig(threshold=ThresholdConfig(n=500))) + 8
    steps = math.ceil(samples / 8)
    checked(f"{OOD}start=0", "max_epochs=1000", f"+max_steps={steps}")
    with pytest.raises(UserError, match="samples of the run"):
        checked(f"{OOD}start=0", "max_epochs=1000", f"+max_steps={steps - 1}")


@pytest.mark.parametrize(("accelerator", "listed"), [("cpu", "2"), ("gpu", [0, 1])])
def test_a_number_of_devices_is_written_as_the_host_takes_it(accelerator, listed, runnable):
    from solo_ood.host import installed

    cfg = runnable.copy()
    cfg.devices, cfg.accelerator = 2, accelerator
    preflight.fill_in_paths(cfg)
    assert cfg.devices == (listed if installed.generation() == "checkout" else 2)


def test_a_folder_of_images_is_taken_as_unlabelled(checked, capsys):
    assert checked(*SMALL, train="flat").data.no_labels is True
    assert "images without class folders, taken as data.no_labels=True." in capsys.readouterr().out
    assert checked(*SMALL, train="good").data.no_labels is False


def test_classes_that_may_be_splits_are_named_once(checked, data, capsys):
    for name in ("trainA", "trainB"):
        write(data / "gan" / name, 20)
    checked(*SMALL, train="gan")
    checked(*SMALL, train="gan")
    line = f"{data / 'gan'}: classes: trainA, trainB; if these are splits, call them train and val"
    assert capsys.readouterr().out.count(line) == 1
    checked(*SMALL)
    assert "splits" not in capsys.readouterr().out


# -- the programs themselves, on either host -------------------------------------------------------


def program(folder, data, *overrides, train="good"):
    """Run ``main_pretrain.py``; return its status, output and the lines of its errors."""
    paths = (f"data.train_path={data / train}", f"data.val_path={data / train}")
    run = warm_host().start(folder, *QUICK, "optimizer.batch_size=8", *paths, *overrides)
    return run.wait(), run.stdout, [line for line in run.stderr.splitlines() if line.strip()]


@pytest.mark.parametrize("overrides", [["optimizer.batch_size=64"], ["name=a/b"]])
def test_the_program_ends_with_one_line_and_a_status(overrides, data, tmp_path):
    status, out, err = program(tmp_path, data, *overrides)
    assert status == 1 and not list(tmp_path.glob("trained_models/*"))
    assert len(err) == 1 and err[0].startswith("Error: ") and overrides[0].split("=")[0] in err[0]


@pytest.fixture(scope="module")
def own_config(registered, data, tmp_path_factory):
    """Return the folder of ``mine.yaml``: the user's own, without a word of Hydra or of checks."""
    folder = tmp_path_factory.mktemp("configs")
    paths = (f"data.train_path={data / 'good'}", f"data.val_path={data / 'good'}")
    OmegaConf.save(_composed(*paths, "optimizer.batch_size=8", *QUICK), folder / "mine.yaml")
    return folder


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.batch_size=64", "the 40 training samples fill"),
        ("method_kwargs.ood.scorer.min_samples=900", "samples of the run: expected at least"),
        ("accelerator=gpuu", "Did you mean 'gpu'"),
    ],
)
def test_user_configs_are_checked_too(override, said, own_config, tmp_path):
    arguments = ("--config-path", str(own_config), "hydra.run.dir=.", override)
    run = warm_host().start(tmp_path, *arguments, config="mine")
    assert run.wait() == 1 and not list(tmp_path.glob("trained_models/*"))
    (line,) = run.stderr.splitlines()
    assert line.startswith("Error: ") and said in line


def test_runs_of_other_methods_are_not_checked(data):
    cfg = _composed(f"data.train_path={data / 'good'}", "method=dino", "optimizer.batch_size=64")
    preflight.Preflight().on_job_start(cfg)
    with pytest.raises(SystemExit, match="the 40 training samples fill"):  # from a config of ours
        preflight.Preflight(every_method=True).on_job_start(cfg)


def test_the_program_trains_on_a_folder_of_images(data, tmp_path):
    status, out, err = program(tmp_path, data, "max_epochs=1", train="flat")
    assert status == 0, err
    assert "taken as data.no_labels=True" in out
    assert list(tmp_path.glob("trained_models/*/*/*.ckpt"))


def test_the_program_takes_exemplars_from_a_file_of_paths(data, tmp_path):
    """As ``solo-ood rank --for-training`` writes them."""
    named = sorted((data / "flat").iterdir())
    path = tmp_path / "rare.txt"
    path.write_text("".join(f"{item.absolute()}\n" for item in named[:3]))
    exemplar = ["ood=exemplar", f"method_kwargs.ood.scorer.exemplars={path}"]
    status, out, err = program(tmp_path, data, "max_epochs=1", *exemplar, train="flat")
    assert status == 0, err
    path.write_text("")
    status, out, err = program(tmp_path, data, "max_epochs=1", *exemplar, train="flat")
    (said,) = [line for line in err if line.startswith("Error: ")]
    assert status == 1 and "exemplars: expected a list, or a file with the path" in said


def test_a_program_that_trained_nothing_fails_with_one_line(data, tmp_path):
    status, out, err = program(tmp_path, data, "+max_time=00:00:00:00")
    assert status == 1 and not any("Traceback" in line for line in err)
    (said,) = [line for line in err if "training: expected at least 1 optimizer step" in line]


def test_what_a_worker_of_the_stream_cannot_read_is_one_line(data, tmp_path):
    for label in "ab":
        write(tmp_path / "bad" / label, 20)
    (tmp_path / "bad" / "b" / "7.png").write_bytes(b"x")
    status, out, err = program(
        tmp_path, tmp_path, "max_epochs=2", "data.num_workers=1", "data.val_path=null", train="bad"
    )
    assert status == 1 and not any("Traceback" in line for line in err)
    (said,) = [line for line in err if "expected a readable image" in line]
    assert "7.png: expected a readable image, got UnidentifiedImageError" in said
