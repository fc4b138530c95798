"""``dino_ood_linear.yaml`` takes everything from the run of its checkpoint, on either host."""

from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from repository import ROOT
from user_run import COUNTS, pictures

CONFIGS = str(ROOT / "configs")


@pytest.fixture
def checkpoint(tmp_path, registered):
    """A file in the place of a checkpoint, and the args.json of a run on data of the user's own."""
    pictures(tmp_path / "train", COUNTS)
    pictures(tmp_path / "val", dict.fromkeys(COUNTS, 2), seed=1)
    config = {
        "name": "mine",
        "method": "dino_ood",
        "backbone": {"name": "vit_tiny", "kwargs": {"dynamic_img_size": True}},
        "data": {
            "dataset": "custom",
            "train_path": str(tmp_path / "train"),
            "val_path": str(tmp_path / "val"),
        },
        "augmentations": [{"crop_size": 48, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]}],
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run/args.json").write_text(json.dumps(config))
    path = tmp_path / "run/mine-0-ep=3.ckpt"
    path.touch()
    return path


def composed(*overrides):
    with initialize_config_dir(CONFIGS, version_base="1.2"):
        return compose("dino_ood_linear", list(overrides))


def test_linear_config_takes_everything_from_the_run(checkpoint, tmp_path):
    cfg = composed(f"pretrained_feature_extractor='{checkpoint}'")
    assert cfg.data.train_path == cfg.data.tail_path == str(tmp_path / "train")
    assert cfg.data.val_path == str(tmp_path / "val")
    assert cfg.data.augmentations == {
        "crop_size": 48, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]
    }  # fmt: skip
    assert cfg.backbone == {"name": "vit_tiny", "kwargs": {"dynamic_img_size": True}}
    assert (cfg.name, cfg.pretrain_method) == ("mine-linear", "dino_ood")
    assert composed(
        f"pretrained_feature_extractor='{checkpoint}'", "data.train_path=other"
    ).data.train_path == "other"  # fmt: skip


def test_batch_size_is_reduced_to_the_data(checkpoint, tmp_path):
    """The host drops the last batch if it is not full: 64 of 50 images would train nothing."""
    from solo_ood.training.preflight import check

    given = f"pretrained_feature_extractor='{checkpoint}'"
    cfg = composed(given)
    check(cfg)
    assert cfg.optimizer.batch_size == 50
    small = pictures(tmp_path / "small", {"bus": 3, "car": 4, "cyclist": 1, "dog": 1})
    assert composed(given, f"data.train_path={small}").optimizer.batch_size == 9
    assert composed(given, f"data.train_path={small}", "devices=2").optimizer.batch_size == 5
    large = pictures(tmp_path / "large", {"bus": 80})
    assert composed(given, f"data.train_path={large}").optimizer.batch_size == 64
    with pytest.raises(ValueError, match="optimizer.batch_size: expected a batch that the 50"):
        check(composed(given, "optimizer.batch_size=64"))  # what the user says stays


def test_a_run_on_the_digits_has_their_balanced_reference(checkpoint, tmp_path, monkeypatch):
    from solo_ood.data.digits import digits_lt

    args = json.loads((checkpoint.parent / "args.json").read_text())
    args["data"].update(
        train_path="/an/older/cache/digits-lt-20-v1/train", val_path="${solo_ood.digits:val}"
    )
    (checkpoint.parent / "args.json").write_text(json.dumps(args))
    cfg = composed(f"pretrained_feature_extractor='{checkpoint}'")
    assert cfg.data.train_path == digits_lt("reference")
    assert cfg.data.tail_path == digits_lt("train") and cfg.data.val_path == digits_lt("val")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "pretrained_feature_extractor: expected the checkpoint to evaluate, got nothing"),
        (("pretrained_feature_extractor=gone.ckpt",), "expected a checkpoint .*got no file gone"),
        (("pretrained_feature_extractor='{}'",), "data.train_path: .*a run without labels"),
    ],
)
def test_missing_data_never_fall_back_to_the_digits(overrides, message, checkpoint):
    """What the run does not say is one line, before the host's program reads anything."""
    from solo_ood.training.preflight import Preflight

    args = json.loads((checkpoint.parent / "args.json").read_text())
    args["data"]["no_labels"] = True
    (checkpoint.parent / "args.json").write_text(json.dumps(args))
    cfg = composed(*[one.format(checkpoint) for one in overrides])
    with pytest.raises(SystemExit, match=f"^Error: .*{message}") as caught:
        Preflight(every_method=True).on_job_start(cfg)  # as the config has it
    assert "\n" not in str(caught.value)


def test_the_hosts_loaders_give_the_runs_crops(checkpoint, tmp_path):
    from solo_ood.host import installed
    from solo_ood.training.linear_script import LinearScript

    cfg = composed(f"pretrained_feature_extractor='{checkpoint}'")
    LinearScript().on_job_start(cfg)
    folders = {"train_data_path": cfg.data.train_path, "val_data_path": cfg.data.val_path}
    if installed.generation() == "checkout":
        import torch
        from solo.data import classification_dataloader as loaders
        from solo.methods import linear

        given = loaders.prepare_data("custom", **folders, batch_size=4, num_workers=0)
        assert len(linear.accuracy_at_k(torch.eye(4), torch.arange(4))) == 2  # 4 classes, not 5
    else:
        from solo_ood.host import release

        given = release.eval_loaders(*folders.values(), cfg.data.augmentations.crop_size, 4, 0)
    for loader in given:
        images, _ = next(iter(loader))
        assert images.shape == (4, 3, 48, 48)
    if installed.generation() == "checkout":
        OmegaConf.update(cfg, "data.augmentations.crop_size", 24)
        LinearScript().on_job_start(cfg)  # a second job of the same process has its own size
        given = loaders.prepare_data("custom", **folders, batch_size=4, num_workers=0)
        assert next(iter(given[1]))[0].shape == (4, 3, 24, 24)
        assert loaders.prepare_transforms("cifar10")[1].transforms  # the host's own


def test_class_ids_are_those_of_the_reference(tmp_path, registered):
    from solo_ood.host import installed

    if installed.generation() != "release":
        pytest.skip("a checkout reads its folders itself")
    from solo_ood.host import release

    train = pictures(tmp_path / "train", COUNTS)
    val = pictures(tmp_path / "val", {"cyclist": 2, "dog": 1})
    _, loader = release.eval_loaders(str(train), str(val), 32, 4, 0)
    assert next(iter(loader))[1].tolist() == [2, 2, 3]  # of bus, car, cyclist, dog
    other = pictures(tmp_path / "other", {"car": 2, "truck": 2})
    with pytest.raises(ValueError, match="no classes but those of .*such as truck"):
        release.eval_loaders(str(train), str(other), 32, 4, 0)
