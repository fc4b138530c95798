"""Every backbone family of the host trains with 2 global crops and a local one of another size."""

from __future__ import annotations

import math

import pytest
import torch
from repository import NO_WIDTH

from solo_ood.errors import UserError

# name, global and local crop in pixels, backbone.kwargs
FAMILIES = [
    ("resnet18", 32, 24, {}),
    ("resnet50", 32, 24, {}),
    ("vit_tiny", 32, 16, {"patch_size": 8, "img_size": 32}),
    ("swin_tiny", 64, 32, {"img_size": 64, "window_size": 4}),
    ("convnext_tiny", 64, 32, {}),
    ("poolformer_s12", 64, 32, {}),
    ("wide_resnet28w2", 32, 24, {}),
]


def has(name):
    from solo_ood.host import installed

    if installed.generation() == "release":
        return name.split("_")[0].rstrip("0123456789") in ("resnet", "vit", "swin")
    return True


@pytest.mark.parametrize(("name", "large", "small", "kwargs"), FAMILIES, ids=lambda v: str(v))
def test_family_trains_on_all_crops(name, large, small, kwargs, compose, build, loader, trainer):
    if not has(name):
        pytest.skip(f"solo-learn 1.0.2 has no {name}; it runs with SOLO_LEARN_CHECKOUT set")
    cfg = compose(
        f"backbone.name={name}",
        *[f"+backbone.kwargs.{key}={value}" for key, value in kwargs.items()],
        f"augmentations.0.crop_size={large}",
        f"augmentations.1.crop_size={small}",
        "optimizer.batch_size=4",
        "method_kwargs.ood.scorer.min_samples=4",
    )
    model = build(cfg)
    before = {k: v.clone() for k, v in model.named_parameters()}
    fitter = trainer(fast_dev_run=2)
    fitter.fit(model, loader(cfg))
    assert math.isfinite(fitter.callback_metrics["dino_loss_step"])
    assert model.selector.scorer.n_fed == 8
    moved = [k for k, v in model.named_parameters() if not torch.equal(v, before[k])]
    assert len(moved) > len(before) / 3


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("vit_tiny", "dynamic_img_size", False), ("swin_tiny", "strict_img_size", True)],
)
def test_transformer_that_forbids_local_crops_is_an_error(name, key, value, compose, build):
    cfg = compose(f"backbone.name={name}", f"+backbone.kwargs.{key}={value}")
    with pytest.raises(ValueError, match=f"backbone.kwargs.{key}: expected {not value}"):
        build(cfg)


def test_local_crop_that_the_backbone_cannot_take_is_an_error(compose, build):
    cfg = compose(
        "backbone.name=vit_tiny",
        "+backbone.kwargs.patch_size=16",
        "+backbone.kwargs.img_size=32",
        "augmentations.1.crop_size=24",  # not a multiple of the patch size
    )
    with pytest.raises(ValueError, match="local crop size: expected .* got 24 pixels"):
        build(cfg)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([NO_WIDTH, "+backbone.kwargs.fo=1"], "TypeError: .*unexpected keyword argument 'fo'"),
        (["backbone.name=vit_tiny", "+backbone.kwargs.patch_size=0"], "ZeroDivisionError: "),
        (["momentum.base_tau=2"], "AssertionError: `assert .*base_tau.* in __init__"),
    ],
)
def test_what_the_host_cannot_build_is_one_line(overrides, said, compose, build):
    cfg = compose(*overrides)
    with pytest.raises(UserError, match=f"settings of the method: expected .*, got {said}") as held:
        build(cfg)
    assert "\n" not in str(held.value) and held.value.__cause__ is not None
