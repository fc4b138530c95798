"""What the commands show: help, defaults, loggers, progress, warnings, errors."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from repository import ROOT
from short_runs import AT_ONCE
from warm_host import warm_host

from solo_ood.cli import main
from solo_ood.cli import parse as parse_command
from solo_ood.errors import unknown_name
from solo_ood.host.quiet import SILENT, ignore_foreign_warnings
from solo_ood.settings.schema import OODConfig, parse

HELP = """
import sys
from solo_ood.cli import COMMANDS, main
for command in ("", *COMMANDS):
    try:
        main([*command.split(), "--help"])
    except SystemExit as done:
        assert done.code == 0
heavy = {"torch", "matplotlib", "sklearn", "scipy", "lightning", "timm", "hydra"} & {*sys.modules}
assert not heavy, heavy
"""
# A natural-image run of a few steps, with the same pipelines and crops of two sizes.
FEW_STEPS = [
    "data.num_workers=0",
    "optimizer.batch_size=8",
    "max_epochs=2",
    "method_kwargs.warmup_teacher_temperature_epochs=1",
    "scheduler.warmup_epochs=1",
    "method_kwargs.num_prototypes=32",
    "method_kwargs.proj_hidden_dim=32",
    "augmentations.0.crop_size=32",
    "augmentations.1.crop_size=32",
    "augmentations.2.crop_size=16",
    "augmentations.2.num_crops=1",
    "backbone.name=vit_tiny",
    "backbone.kwargs.img_size=32",
    "method_kwargs.ood.start=0",
    "method_kwargs.ood.threshold.n=20",
    "method_kwargs.ood.scorer.min_samples=8",
    "log_every_n_steps=1",
    "check_val_every_n_epoch=2",
    "+limit_val_batches=1",
]


def all_keys(block, path=()) -> set[tuple[str, ...]]:
    keys = set()
    for key, value in block.items():
        keys |= all_keys(value, (*path, key)) if isinstance(value, dict) else {(*path, key)}
    return keys


def test_the_help_of_every_command_imports_nothing_heavy_and_fits_a_terminal():
    done = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "exemplar-regions" in done.stdout  # names of the detectors all the same
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_default_block_is_the_schema_with_its_comments():
    path = ROOT / "tools/write_defaults.py"
    spec = importlib.util.spec_from_file_location("write_defaults", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.TARGET.read_text()
    assert text == module.text(), "run: python tools/write_defaults.py"
    assert OmegaConf.create(text) == OmegaConf.structured(OODConfig)
    comments = [line for line in text.splitlines() if "#" in line and ":" in line]
    assert len(comments) > 20 and max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "block", [path.stem for path in sorted((ROOT / "configs/ood").glob("*.yaml"))]
)
def test_every_key_of_every_block_is_overridden_without_a_plus(block, compose):
    every = OmegaConf.to_container(OmegaConf.structured(OODConfig))
    given = [f"ood={block}", "method_kwargs.ood.mix.ratio=0.5"]
    given += ["method_kwargs.ood.scorer.exemplars=[1,2]"] * (block == "exemplar")
    cfg = compose(*given, tiny=False)
    own = OmegaConf.to_container(cfg.method_kwargs.ood)
    assert all_keys(own) == all_keys(every)
    assert parse(cfg.method_kwargs.ood).mix.ratio == 0.5


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16:9 pictures in two class folders of a train and a val split."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, n in (("train", 16), ("val", 8)):
        for name in ("car", "rider"):
            (root / split / name).mkdir(parents=True)
            for number in range(n):
                pixels = rng.integers(0, 255, (36, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def natural(photographs, tmp_path_factory, registered):
    """A short run of ``dino_ood_natural`` on the installed host, its output in a file."""
    data = [f"data.{split}_path={photographs / split}" for split in ("train", "val")]
    loggers = ["+logger=tensorboard"] * bool(importlib.util.find_spec("tensorboard"))
    folder = tmp_path_factory.mktemp("natural")
    run = warm_host().start(folder, *data, *FEW_STEPS, *loggers, config="dino_ood_natural")
    assert run.wait(300) == 0, run.stderr[-3000:]
    return run


def test_natural_images_are_trained_with_dinos_own_settings(natural, compose):
    (checkpoint,) = natural.checkpoints()
    assert (checkpoint.parent / "args.json").is_file()
    config = OmegaConf.load(ROOT / "configs/dino_ood_natural.yaml")
    first, second, local = config.augmentations
    assert [p.gaussian_blur.prob for p in config.augmentations] == [1.0, 0.1, 0.5]
    assert [p.solarization.prob for p in config.augmentations] == [0.0, 0.2, 0.0]
    assert first.crop_size == second.crop_size == 224 and local.num_crops == 6
    assert {p.horizontal_flip.prob for p in config.augmentations} == {0.5}
    assert not config.method_kwargs.use_bn_in_head
    own = config.method_kwargs
    assert (own.warmup_teacher_temperature, own.teacher_temperature) == (0.04, 0.07)


def test_a_run_into_a_file_has_no_bar_and_ends_with_the_summary(natural):
    lines = natural.stdout.splitlines()
    assert "\r" not in natural.stdout and "it/s" not in natural.stdout
    assert max(map(len, lines)) <= 80 and len(lines) < 12
    labels = {line[:14].strip() for line in lines}
    assert {"flag rate", "queue"} <= labels
    assert "2 epochs, 8 steps" in lines


def test_the_logger_that_was_named_is_written_beside_the_csv(natural, tmp_path):
    """Or refused where its package is missing."""
    assert len(list(natural.folder.rglob("metrics.csv"))) == 1
    if importlib.util.find_spec("tensorboard"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (events,) = natural.folder.rglob("events.out.tfevents.*")
        assert (events.parent / "metrics.csv").is_file()
        logged = EventAccumulator(str(events))
        logged.Reload()
        assert {"dino_loss_step", "ood/queue_fill"} <= {*logged.Tags()["scalars"]}
        return
    run = warm_host().start(tmp_path, "+logger=tensorboard")
    assert run.wait() == 1 and "expected the package tensorboard, got none" in run.stderr


@pytest.mark.parametrize(
    ("override", "config", "error"),
    [
        ("+logger=tensorbord", "dino_ood", "Unknown logger: .* Did you mean 'tensorboard'"),
        ("+logger=wandb", "dino_ood", "logger: expected csv, .* Set wandb.enabled=True"),
        ("+logger=False", "dino_ood", "logger: expected csv, .* got False"),
        ("+logger={a:1}", "dino_ood", "logger: expected csv"),
        ("max_epochs=40", "dino_ood_natural", "data.train_path: expected the path of your data"),
        ("data.train_path=.", "dino_ood_natural", "data.val_path: .* or null for no validation"),
    ],
)
def test_a_bad_logger_or_a_missing_path_is_one_line(override, config, error, tmp_path, registered):
    run = warm_host().start(tmp_path, override, config=config)
    assert run.wait() == 1
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("Error: ")]
    assert re.search(error, line)
    assert "Traceback" not in run.stderr and not (tmp_path / "trained_models").exists()


def terminal() -> tuple[int, object]:
    """Return the reading end of a terminal of 150 columns, and its writing end as a text file."""
    reading, writing = os.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    os.set_blocking(reading, False)
    return reading, os.fdopen(writing, "w")


def test_the_bar_shows_loss_flag_rate_and_queue(compose, build, loader, trainer, monkeypatch):
    from lightning.pytorch.callbacks import TQDMProgressBar

    cfg = compose("backbone.name=resnet18", "augmentations.1.num_crops=0")
    reading, file = terminal()
    monkeypatch.setattr(sys, "stdout", file)
    fit = trainer(
        enable_progress_bar=True, callbacks=[TQDMProgressBar()], max_epochs=1,
        limit_train_batches=6, log_every_n_steps=2, limit_val_batches=0, logger=True,
    )  # fmt: skip
    fit.fit(build(cfg), loader(cfg))
    file.flush()
    parts = []
    with suppress(BlockingIOError):  # raised when everything is read
        while True:
            parts.append(os.read(reading, 1 << 16))
    said = b"".join(parts).decode()
    file.close()
    os.close(reading)
    (last,) = [line for line in said.split("\r") if "6/6" in line][-1:]
    for name in ("loss=", "ood/flag_rate=", "ood/queue_fill="):
        assert name in last
    assert "v_num" not in said
    assert "flag rate  " in said  # the summary


def test_host_warnings_are_silenced_and_user_warnings_are_not(compose, build, loader, trainer):
    with pytest.warns(UserWarning, match="smaller than the logging interval") as caught:
        ignore_foreign_warnings()
        cfg = compose("augmentations.1.num_crops=0", *AT_ONCE)
        fit = trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, logger=True)
        fit.fit(build(cfg), loader(cfg))
    for one in caught:
        for message, _ in SILENT:
            assert not re.match(message, str(one.message)), one
    assert all(message for message, _ in SILENT)  # none ignores everything of its category


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("persn", "'person'"), ("Person", "'person'"), ("bus", "Use one of these names")],
)
def test_a_name_is_offered_only_if_it_is_spelt_alike(name, remedy):
    assert remedy in unknown_name("class", name, ("rider", "person")).remedy


def test_a_message_does_not_list_a_thousand_names():
    error = unknown_name("class", "x", [f"class{number:04d}" for number in range(1000)])
    assert "(1000 in all)" in str(error) and len(str(error)) < 700


@pytest.mark.parametrize(
    ("data", "arguments", "error"),
    [
        ("photographs", ["--embedder", "resnt18:random", "--rare", "x"], "Did you mean 'resnet18'"),
        ("photographs", ["--embedder", "resnet18:no.pth", "--exemplars", "x"], "no file no.pth"),
        ("nowhere", ["--embedder", "resnet18:random"], "^Error: data: expected a folder or a .csv"),
    ],
)
def test_measure_looks_at_the_networks_before_the_images(data, arguments, error, photographs):
    (photographs / "train/car/0.jpg").touch()
    place = photographs / "train" if data == "photographs" else photographs / data
    with pytest.raises(SystemExit, match=error):
        main(["measure", str(place), *arguments])


def test_measure_says_what_it_took_for_rare_and_writes_whole_lines(photographs, tmp_path):
    program = str(Path(sys.executable).with_name("solo-ood"))
    quick = ["--bootstrap", "20", "--repeats", "1", "--num-workers", "0", "--image-size", "32"]
    places = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(
        [program, "measure", str(photographs / "train"), "--embedder", "resnet18:random",
         "--detectors", "knn", "--sizes", "all", "--percentiles", "0.8", *quick, *places],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "--rare was not given: assumed tail" in done.stdout.split("scoring")[0]
    assert "\r" not in done.stderr and max(map(len, done.stderr.splitlines())) < 200
    assert "32/32" in done.stderr.splitlines()[-1]


def test_a_value_of_the_wrong_kind_is_named_in_words():
    error = "--base-rate: expected a number above 0 and below 1, got much. Leave --base-rate out"
    with pytest.raises(SystemExit, match=error):
        main(["measure", ".", "--embedder", "x", "--base-rate", "much"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("--seed 5000000000", "expected a whole number from 0 to 4294967295"),
        ("--seed -1", "expected a whole number from 0 to 4294967295"),
        ("--class-order 4294967296", "expected a whole number from 0 to 4294967295"),
        ("--imbalance nan", "expected a number of at least 1, got nan"),
        ("--imbalance inf", "expected a number of at least 1, got inf"),
        ("--imbalance 0.5", "expected a number of at least 1, got 0.5"),
    ],
)
def test_numbers_that_no_run_could_use_are_refused_by_name(arguments, error):
    with pytest.raises(SystemExit, match=f"Error: {arguments.split()[0]}: {error}"):
        main(["measure", ".", "--embedder", "x", *arguments.split()])


def test_options_given_twice_are_joined_and_replace_the_default():
    command = ["measure", ".", "--embedder", "a", "b", "--embedder", "c", "--detectors", "knn"]
    for _ in range(2):  # a default that grew would show the second time
        _, options = parse_command([*command, "--rare", "a", "b", "--rare", "c", "--sizes", "9"])
        assert (options.rare.names, options.networks.specs) == (("a", "b", "c"), ("a", "b", "c"))
        assert (options.detectors.names, options.plan.sizes) == (("knn",), (9,))
    _, options = parse_command(["measure", ".", "--embedder", "a"])
    assert (options.plan.sizes, options.rare.names) == ((256, 1024, None), ())
    _, options = parse_command(["evaluate", ".", "--k", "1", "5", "--k", "20", "--methods", "knn"])
    assert (options.k, options.methods, options.temperature) == ((1, 5, 20), ("knn",), (0.07,))
    options = parse_command(["evaluate", ".", "--weights", "teacher", "--weights", "student"])[1]
    assert (options.weights, options.methods) == (("teacher", "student"), ("knn", "linear"))


def test_every_remedy_tells_what_to_do():
    texts = [path.read_text() for path in (ROOT / "solo_ood").rglob("*.py")]
    remedies = [match for text in texts for match in re.findall(r'remedy=f?"([^"]*)', text)]
    assert len(remedies) > 60
    for empty in ("Look again", "Look at", "Name another one", "Check the path.", "accordingly"):
        assert not [one for one in remedies if one.startswith(empty) or empty in one[-14:]], empty


OWN = """
from solo_ood.training.plugin import register; register()
from hydra import compose, initialize_config_dir
from solo_ood.settings.schema import parse
with initialize_config_dir({folder!r}, version_base="1.2"):  # our group by the plugin
    added = compose("plain", ["+ood=random"]).method_kwargs
    forced = compose("plain", ["++method_kwargs.ood.scorer.k=3"]).method_kwargs
    listed = compose("listed", ["method_kwargs.ood.scorer.k=3"]).method_kwargs
assert added.num_prototypes == 8 and parse(added.ood).scorer.name == "random"
assert parse(forced.ood).scorer.k == 3
assert (listed.ood.mix.mode, listed.ood.scorer.k, listed.ood.mix.ratio) == ("append", 3, 0.25)
"""


def test_block_can_be_added_to_a_user_config(tmp_path):
    own = "method: dino_ood\nmethod_kwargs:\n  num_prototypes: 8\n"
    (tmp_path / "plain.yaml").write_text(own)
    group = "defaults:\n  - ood: default\n  - _self_\n"
    (tmp_path / "listed.yaml").write_text(group + own + "  ood: {mix: {mode: append}}\n")
    code = OWN.format(folder=str(tmp_path))
    done = subprocess.run(  # not in the repository, whose package has no configs
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_closed_output_pipe_does_not_stop_the_work(tmp_path):
    code = (
        "import sys; from pathlib import Path; from solo_ood.console import show; "
        "sys.stdin.read(1); "
        "[show(word) for word in 'abc']; Path(sys.argv[1]).touch()"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "done")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:  # fmt: skip
        process.stdout.close()
        process.stdin.write(b"x")
        process.stdin.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
    assert (tmp_path / "done").exists()
