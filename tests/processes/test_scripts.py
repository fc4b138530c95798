"""The user's commands on the release host, each in a process of its own.

Every command starts as a user starts it once; what else is asked of it is asked of forks of a
process that has imported everything.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from repository import NO_WIDTH, ROOT
from warm_host import warm_host

SOLO_OOD = Path(sys.executable).parent / "solo-ood"


def call(*command, cwd):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500)
    return done.returncode, done.stdout, done.stderr


def forked(path, *arguments, cwd):
    done = warm_host().program(cwd, path, *arguments)
    return done.wait(timeout=400), done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory, registered, tiny):
    """Train with ``main_pretrain.py --config-name dino_ood``; return the run's folder."""
    from solo_ood.host import installed

    if installed.generation() != "release":
        pytest.skip("scripts/ is for solo-learn 1.0.2; a checkout has its own scripts")
    folder = tmp_path_factory.mktemp("run")
    script = [sys.executable, ROOT / "scripts/main_pretrain.py", "--config-name", "dino_ood"]
    code, out, err = call(*script, *tiny, "+limit_train_batches=40", cwd=folder)
    assert code == 0, err[-3000:]
    assert "run: trained_models/dino_ood/0" in out
    return folder / "trained_models/dino_ood/0"


def checkpoint_of(run):
    (path,) = run.glob("*.ckpt")
    return path


def test_pretraining_logs_the_detector(run):
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    names = ["flag_rate", "threshold", "queue_fill", "queue_age", "replayed", "lift"]
    for name in [*names, "distinct_replayed", "replays_per_sample", "share_released"]:
        assert f"ood/{name}" in header
    assert len(rows) > 10 and (run / "args.json").is_file()


def knn(run, *arguments):
    return [ROOT / "scripts/main_knn.py", "--pretrained_checkpoint_dir", run, *arguments]


def linear(run, *overrides):
    extractor = f"pretrained_feature_extractor='{checkpoint_of(run)}'"
    script = ROOT / "scripts/main_linear.py"
    return [script, "--config-name", "dino_ood_linear", extractor, *overrides]


def test_knn_and_linear_report_many_medium_few(run, digits_cache):
    code, out, err = call(sys.executable, *knn(run), cwd=run)
    assert code == 0, err[-3000:]
    assert "k-NN accuracy, % (k=20, cosine): All" in out
    code, out, err = forked(*linear(run, "max_epochs=2"), cwd=run)
    assert code == 0, err[-3000:]
    for name in ("knn", "linear"):
        result = json.loads((run / f"{name}.json").read_text())
        about = result.pop("about")
        assert list(result) == ["All", "Many", "Medium", "Few"]
        groups = 0.4 * result["Many"] + 0.3 * result["Medium"] + 0.3 * result["Few"]
        assert result["All"] == pytest.approx(groups)  # a balanced test set, 4 + 3 + 3 classes
        assert result["All"] > 20  # chance is 10
        for split, images in (("reference", 1380), ("val", 360)):
            key = {"reference": "train"}.get(split, split)
            (path,) = digits_cache.glob(f"digits-lt*/{split}")
            assert about[key] == {"path": str(path.resolve()), "images": images, "classes": 10}
            assert f"{images:,} images of 10 classes in {path.resolve()}" in out
    assert about["val_loss"] < 3  # finite and moderate: chance is log(10) = 2.3


def test_evaluate_agrees_with_the_hosts_program(run, digits_cache, tmp_path):
    """The same images, cut in the same way, and the same classifier."""
    code, out, err = forked(
        SOLO_OOD, "evaluate", run, "--weights", "student", "--methods", "knn", "--out", tmp_path,
        "--num-workers", 0, "--train", next(digits_cache.glob("digits-lt*/reference")),
        "--references", "train", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err[-3000:]
    (ours,) = json.loads((tmp_path / "evaluation.json").read_text())["figures"]
    theirs = json.loads((run / "knn.json").read_text())
    for name in ("All", "Many", "Medium", "Few"):
        assert ours[name] == pytest.approx(theirs[name], abs=0.3)  # one of 360 images


def test_a_run_on_own_data_is_evaluated_on_these(run, tmp_path):
    """Not on the embedded digits, nor at 224 pixels, nor with a rate at which it diverges."""
    from user_run import COUNTS, pictures

    pictures(tmp_path / "train", COUNTS)
    pictures(tmp_path / "val", dict.fromkeys(COUNTS, 5), seed=1)
    mine = tmp_path / "mine"
    mine.mkdir()
    args = json.loads((run / "args.json").read_text())
    args["num_classes"] = len(COUNTS)  # of the online classifier
    paths = {f"{split}_path": str(tmp_path / split) for split in ("train", "val")}
    args["config"]["data"].update(paths)
    (mine / "args.json").write_text(json.dumps(args))
    checkpoint = torch.load(checkpoint_of(run), weights_only=True)
    for key in [key for key in checkpoint["state_dict"] if key.startswith("classifier.")]:
        checkpoint["state_dict"][key] = checkpoint["state_dict"][key][: len(COUNTS)]
    torch.save(checkpoint, mine / "mine.ckpt")

    code, out, err = forked(*knn(mine, "--num_workers", "0"), cwd=mine)
    assert code == 0, err[-3000:]
    small = ("data.num_workers=0", "optimizer.batch_size=16")
    code, out, err = forked(*linear(mine, *small), cwd=mine)
    assert code == 0, err[-3000:]
    for name in ("knn", "linear"):
        about = json.loads((mine / f"{name}.json").read_text())["about"]
        assert about["train"] == {"path": paths["train_path"], "images": 50, "classes": 4}
        assert about["val"] == {"path": paths["val_path"], "images": 20, "classes": 4}
        assert about["tail"] == about["train"]
    assert about["val_loss"] < 5
    code, out, err = forked(*linear(mine, "optimizer.batch_size=64"), cwd=mine)
    assert code == 1 and "Error: optimizer.batch_size: expected a batch that the 50" in err


def test_report_writes_a_summary_and_pictures(run):
    code, out, err = forked(SOLO_OOD, "report", run, cwd=run)
    assert code == 0, err[-3000:]
    for word in ("DINO loss", "flag rate", "target 20.00%", "lift", "queue", "k-NN", "linear"):
        assert word in out
    for name in ("queue.png", "scores.png", "curves.png"):
        assert (run / "report" / name).stat().st_size > 5000
    assert (run / "report/summary.txt").read_text() == out
    assert re.search(r"\d+ distinct samples, drawn \d+\.\d times each", out)
    assert re.search(r"\d+ left it: .*\d+% (released|worn out|pushed out)", out)


@pytest.mark.parametrize("weights", ["teacher", "student"])
def test_exported_checkpoint_is_plain_dino(weights, run, tmp_path, registered):
    from solo_ood.training.release_programs import load_network

    code, out, err = forked(
        SOLO_OOD, "export", checkpoint_of(run), tmp_path, "--weights", weights, cwd=tmp_path
    )
    assert code == 0, err
    args = json.loads((tmp_path / "args.json").read_text())
    assert args["method"] == "dino" and "ood" not in args
    exported = checkpoint_of(tmp_path)
    # The stock loader takes the student's keys, which hold the weights asked for.
    network, _ = load_network(exported, "student")
    original, _ = load_network(checkpoint_of(run), weights)
    wanted = original.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
    assert set(torch.load(exported, weights_only=True)) <= {
        "epoch", "global_step", "pytorch-lightning_version", "state_dict",
    }  # fmt: skip


def test_the_lines_of_the_readme_load_the_exported_teacher_into_timm(run, tmp_path, tiny):
    from solo_ood.training.release_programs import load_network

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    (code,) = (block for block in blocks if "timm" in block)
    whole = [*tiny, NO_WIDTH, "ood=off", "max_epochs=1", "+limit_train_batches=1"]
    program = [ROOT / "scripts/main_pretrain.py", "--config-name", "dino_ood", *whole]
    exit_code, out, err = forked(*program, cwd=tmp_path)
    assert exit_code == 0, err[-3000:]
    run = tmp_path / "trained_models/dino_ood/0"
    exit_code, out, err = forked(SOLO_OOD, "export", run, tmp_path, "--weights", "teacher", cwd=run)
    assert exit_code == 0, err
    names: dict = {}
    exec(code.replace("OUT/NAME-teacher.ckpt", str(checkpoint_of(tmp_path))), names)
    original, _ = load_network(checkpoint_of(run), "teacher")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(names["teacher"](images), original.eval()(images))


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("data.train_path=nowhere", "data.train_path: expected an existing folder, got nowhere"),
        ("++method_kwargs.ood.scorer.name=knnn", "Unknown ood.scorer.name.*Did you mean 'knn'"),
        ("++method_kwargs.ood.qeue.capacity=3", "Unknown key in method_kwargs.ood.*'queue'"),
        ("++method_kwargs.ood.mix.ratio=0.01", "ood.mix.ratio: expected a ratio that gives at"),
        (
            "+method_kwargs.warmup_teacher_temperature_epochs=99",
            "method_kwargs.warmup_teacher_temperature_epochs: expected at most max_epochs = 15",
        ),
    ],
)
def test_bad_input_is_one_clear_line_before_any_work(override, error, run, tmp_path):
    script = ROOT / "scripts/main_pretrain.py"
    code, out, err = forked(script, "--config-name", "dino_ood", override, cwd=tmp_path)
    assert code == 1
    assert "Traceback" not in err
    assert re.search(f"Error: {error}", err), err
    assert not (tmp_path / "trained_models").exists()
