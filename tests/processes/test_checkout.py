"""The unmodified git checkout that ``SOLO_LEARN_CHECKOUT`` names, with this package installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matrix.hiding import hide
from repository import ROOT, TESTS
from short_runs import AT_ONCE

CHECKOUT = os.environ.get("SOLO_LEARN_CHECKOUT")

pytestmark = pytest.mark.skipif(
    CHECKOUT is None, reason="set SOLO_LEARN_CHECKOUT to a checkout of solo-learn's main branch"
)


def call(*command, cwd, **env):
    full = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **env}
    full["PYTHONPATH"] = str(Path(CHECKOUT).resolve())  # before an installed release
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=cwd, env=full, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def script(name):
    return Path(CHECKOUT).resolve() / name


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny):
    """Train with the stock ``main_pretrain.py --config-name dino_ood``."""
    folder = tmp_path_factory.mktemp("checkout")
    code, out, err = call(
        sys.executable, script("main_pretrain.py"), "--config-name", "dino_ood",
        *tiny, "+limit_train_batches=30", "+limit_val_batches=2", cwd=folder,
    )  # fmt: skip
    assert code == 0, err[-3000:]
    (path,) = folder.glob("trained_models/dino_ood/*/*.ckpt")
    return path


def test_stock_pretraining_uses_the_config_without_further_arguments(checkpoint):
    args = json.loads((checkpoint.parent / "args.json").read_text())
    assert args["method"] == "dino_ood"
    assert args["data"]["train_path"] == "${solo_ood.digits:train}"
    (metrics,) = checkpoint.parents[3].glob("lightning_logs/*/metrics.csv")
    assert "ood/flag_rate" in metrics.read_text()


def test_missing_data_path_is_one_clear_line(tmp_path):
    code, out, err = call(
        sys.executable, script("main_pretrain.py"), "--config-name", "dino_ood",
        "data.train_path=nowhere", cwd=tmp_path,
    )  # fmt: skip
    assert code == 1 and "Traceback" not in err
    assert "Error: data.train_path: expected an existing folder, got nowhere" in err


@pytest.mark.parametrize("exported", [False, True])
def test_stock_linear_evaluation(exported, checkpoint, tmp_path):
    if exported:
        solo_ood = Path(sys.executable).parent / "solo-ood"
        assert call(solo_ood, "export", checkpoint, tmp_path, cwd=tmp_path)[0] == 0
        (checkpoint,) = tmp_path.glob("*.ckpt")
    code, out, err = call(
        sys.executable, script("main_linear.py"), "--config-name", "dino_ood_linear",
        f"pretrained_feature_extractor='{checkpoint}'", "max_epochs=1", "+limit_train_batches=2",
        "+limit_val_batches=2", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err[-3000:]
    (metrics,) = tmp_path.glob("lightning_logs/*/metrics.csv")
    assert "val_acc1" in metrics.read_text()


@pytest.mark.parametrize("exported", [False, True])
def test_knn_and_umap_through_the_launcher(exported, checkpoint, tmp_path, digits_cache):
    folder = checkpoint.parent
    if exported:
        folder = tmp_path / "exported"
        solo_ood = Path(sys.executable).parent / "solo-ood"
        assert call(solo_ood, "export", checkpoint, folder, cwd=tmp_path)[0] == 0
    (data,) = digits_cache.glob("digits-lt*")
    common = [
        "--dataset", "custom", "--train_data_path", data / "val", "--val_data_path", data / "val",
        "--batch_size", 32, "--num_workers", 0, "--pretrained_checkpoint_dir", folder,
    ]  # fmt: skip
    code, out, err = call(
        sys.executable, "-m", "solo_ood", script("main_knn.py"), *common, "--k", 5,
        "--temperature", 0.07, "--distance_function", "cosine", "--feature_type", "backbone",
        cwd=tmp_path, PYTHONWARNINGS="",
    )  # fmt: skip
    assert code == 0, err[-3000:]
    assert "Overwriting" not in err and "please import via timm" not in err  # the host's own
    (accuracy,) = re.findall(r"Result: acc@1=([\d.]+)", out)
    assert float(accuracy) > 30  # the reference holds the test samples; chance is 10
    if exported:
        return
    code, out, err = call(
        sys.executable, "-m", "solo_ood", script("main_umap.py"), *common, cwd=tmp_path
    )
    assert code == 0, err[-3000:]
    assert (tmp_path / "im100_val_umap.pdf").stat().st_size > 1000


def test_own_yaml_needs_only_the_block(tmp_path, tiny):
    """A config of the user's own: stock keys, ``method: dino_ood`` and ``method_kwargs.ood``."""
    stock = script("scripts/pretrain/cifar/dino.yaml").read_text()
    stock = stock.replace('method: "dino"', 'method: "dino_ood"')
    stock = stock.replace("method_kwargs:", "method_kwargs:\n  ood:\n    scorer: {name: random}")
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "mine.yaml").write_text(stock)
    for group in ("augmentations", "wandb"):
        (configs / group).symlink_to(script(f"scripts/pretrain/cifar/{group}"))
    from solo_ood.data.digits import digits_lt

    shared = [o for o in tiny if o.startswith(("optimizer", "data", "max_", "method_kwargs."))]
    code, out, err = call(
        sys.executable, script("main_pretrain.py"), "--config-path", configs, "--config-name",
        "mine", *shared, *[f"++{one}" for one in AT_ONCE],
        "+method_kwargs.warmup_teacher_temperature_epochs=0",
        "data.dataset=custom", f"data.train_path={digits_lt('train')}",
        f"data.val_path={digits_lt('val')}", "devices='1'", "accelerator=cpu", "strategy=auto",
        "sync_batchnorm=False", "precision=32", "++wandb.enabled=False", "+limit_train_batches=2",
        "+limit_val_batches=1", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err[-3000:]
    assert list(tmp_path.glob("trained_models/dino_ood/*/*.ckpt"))


def test_the_method_passes_its_tests_on_the_checkout(tmp_path):
    code, out, err = call(
        sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider",
        *(next(TESTS.glob(f"*/test_{name}.py")) for name in ("method", "backbones", "ddp")),
        cwd=ROOT,
    )  # fmt: skip
    assert code == 0, out[-3000:]
    assert "skipped" not in out  # every backbone family is there


def test_upstream_suite_is_the_same_with_this_package_as_without(tmp_path):
    """Compare the outcome of every upstream test with and without our Hydra plugin on the path."""
    outcomes = []
    for path in (script("."), f"{hide(tmp_path / 'hidden')}{os.pathsep}{script('.')}"):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path)}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rA", "-W", "ignore", "-p",
             "no:cacheprovider", "--tb=no", "--continue-on-collection-errors", "tests"],
            cwd=CHECKOUT, env=env, capture_output=True, text=True,
        )  # fmt: skip
        lines = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) (\S+)", done.stdout, re.M)
        outcomes.append(sorted(lines))
    assert len(outcomes[0]) > 40
    assert outcomes[0] == outcomes[1]
