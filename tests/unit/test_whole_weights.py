"""Weights are used whole: a network's all, a file's all but heads and decoders, or an error."""

from __future__ import annotations

from functools import cache

import pytest
import timm
import torch

from solo_ood.embedding.networks import make_embedder
from solo_ood.embedding.weights import load_into
from solo_ood.errors import UserError

VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 32, "num_classes": 0}
V2 = {**VIT, "img_size": 28}
SWIN = {"embed_dim": 16, "num_heads": (1, 2, 4, 8), "img_size": 64, "window_size": 2}
CONVNEXT = {"dims": (8, 8, 8, 8)}
PLAIN, REGISTERS = "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"


@cache
def _network(name, seed, items):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model(name, **dict(items))
        for parameter in network.parameters():  # tokens and biases start as zeros
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def narrow(name, kwargs):
    return {"channels": (64, 8, 8, 8), **kwargs} if name.startswith("resnet") else kwargs


def state_of(name="resnet18", seed=1, **kwargs):
    """Return the state dict of a random network, the same for the same seed."""
    kwargs = narrow(name, kwargs)
    return dict(_network(name, seed, tuple(kwargs.items())).state_dict())


def load(content, which="auto", name="resnet18", **kwargs):
    """Fill a fresh network with the content of a file; return it and the note."""
    network = timm.create_model(name, **{"num_classes": 0, **narrow(name, kwargs)})
    return network, load_into(network, content, which, "w.pth", name)[1]


def same(network, state):
    own = network.state_dict()
    return all(torch.equal(v, state[k]) for k, v in own.items() if "num_batches" not in k)


# -- values that are no weights --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda w: w.to(torch.int8), "values of the type int8"),
        (lambda w: w.to(torch.int64), "values of the type int64"),
        (lambda w: w.to(torch.complex64), "values of the type complex64"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "the type qint8"),
        (lambda w: w.to_sparse(), "the layout sparse_coo"),
        (lambda w: w.to("meta"), r"no values \(meta\)"),
        (lambda w: w.fill_(float("nan")), "values that are not finite"),
        (lambda w: w.double() * 1e300, "values that are not finite"),
    ],
)
def test_values_that_are_no_weights_are_an_error_that_names_the_tensor(change, got):
    state = state_of()
    state["bn1.running_var"] = change(state["bn1.running_var"].clone())
    with pytest.raises(UserError, match=f"floating point.*got bn1.running_var with .*{got}") as one:
        load(state)
    assert "\n" not in str(one.value)
    with pytest.raises(UserError, match="got bn1.running_var|expected one network, got 2"):
        load({"a": state, "b": {k: v.clone() for k, v in state.items()}})


def test_a_flaw_in_the_network_that_is_not_taken_and_float8_do_no_harm():
    state = state_of()
    student = {**state, "conv1.weight": state["conv1.weight"] * float("nan")}
    assert same(load({"teacher": state, "student": student})[0], state)
    load({**state, "conv1.weight": state["conv1.weight"].to(torch.float8_e4m3fn)})


# -- what is left over in the file -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "network", "block"),
    [
        (("resnet34", {}), ("resnet18", {}), r"layer1\.2, .*: a deeper network\?"),
        (
            ("vit_tiny_patch16_224", {**VIT, "depth": 5}),
            ("vit_tiny_patch16_224", VIT),
            r"blocks\.3, blocks\.4: a deeper network\?",
        ),
        (
            ("convnext_atto", {"depths": (1, 1, 3, 1), **CONVNEXT}),
            ("convnext_atto", {"depths": (1, 1, 2, 1), **CONVNEXT}),
            r"stages\.2\.blocks\.2: a deeper network\?",
        ),
        (
            ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 3, 1), **SWIN}),
            ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 2, 1), **SWIN}),
            r"layers\.2\.blocks\.2: a deeper network\?",
        ),
        (
            ("vit_tiny_patch16_224", {**VIT, "qk_norm": True}),
            ("vit_tiny_patch16_224", VIT),
            r"blocks\.0\.attn\.q_norm.*: another variant",
        ),
        (
            ("vit_tiny_patch16_224", VIT),
            ("vit_tiny_patch16_224", {**VIT, "qkv_bias": False}),
            r"blocks\.0\.attn\.qkv\.bias.*: another variant",
        ),
        (
            ("vit_tiny_patch16_224", {**VIT, "init_values": 0.1}),
            ("vit_tiny_patch16_224", VIT),
            r"blocks\.0\.ls1.*: another variant",
        ),
        (
            ("deit_tiny_distilled_patch16_224", VIT),
            ("deit_tiny_patch16_224", VIT),
            "dist_token",
        ),
        ((REGISTERS, V2), (PLAIN, V2), "reg_token.*Name the network with registers.*_reg"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_a_larger_network_of_the_family_is_an_error(file, network, block, prefix):
    state = {prefix + k: v for k, v in state_of(file[0], **file[1]).items()}
    with pytest.raises(UserError, match=f"the file (also )?has {block}"):
        load(state, name=network[0], **network[1])


def test_registers_by_their_official_names():
    """DINOv2's files also hold a position of the CLS token."""
    state = {"mask_token": torch.zeros(1, 32), **state_of(REGISTERS, **V2)}
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 32), state["pos_embed"]], dim=1)
    state["register_tokens"] = state.pop("reg_token")
    with pytest.raises(UserError, match="the file also has register_tokens.*registers, such as"):
        load(state, name=PLAIN, **V2)
    network, note = load(state, name=REGISTERS, **V2)
    assert torch.equal(network.reg_token, state["register_tokens"])
    assert note == "matched 49 of 49 tensors by name; converted: pos_embed"
    del state["register_tokens"]
    with pytest.raises(UserError, match="missing reg_token.*Name the network without registers"):
        load(state, name=REGISTERS, **V2)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"depth": 2}, "blocks.2"),
        ({"depth": 4}, "1 and .* more|12 missing"),
        ({"embed_dim": 48}, "shape 1 x 1 x 48, in the file 1 x 1 x 32"),
        # timm's converter would bring the patch embedding to the other size.
        ({"patch_size": 8}, "shape 32 x 3 x 8 x 8, in the file 32 x 3 x 16 x 16"),
        ({"in_chans": 1}, "shape 32 x 1 x 16 x 16, in the file 32 x 3 x 16 x 16"),
    ],
)
def test_another_shape_of_the_same_architecture_is_an_error(kwargs, match):
    with pytest.raises(UserError, match=match):
        load(state_of("vit_tiny_patch16_224", **VIT), name="vit_tiny_patch16_224", **VIT | kwargs)


HEADS = {
    "fc.weight": "fc (1), a head",
    "head.mlp.0.weight": "head (1), a head",
    "projection_head.layers.0.weight": "projection_head (1), a head",
    "predictor2.0.weight": "predictor2 (1), a head",
    "prototypes.weight": "prototypes (1), a head",
    "decoder_blocks.0.norm1.weight": "decoder_blocks (1), a decoder",
    "mask_token": "mask_token (1), of masked training",
    "queue": "queue (1), a state of its training",
}


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("key", HEADS)
def test_heads_decoders_and_mask_tokens_are_left_out_and_said(key, prefix):
    state = {prefix + k: v for k, v in state_of(num_classes=0).items()}
    network, note = load({**state, key: torch.ones(2)})
    assert same(network, state_of(num_classes=0))
    assert note.startswith("matched 100 of 100 tensors by name")
    assert note.endswith(f"left over in the file: {HEADS[key]}")


def test_a_family_may_call_its_classifier_what_it_likes():
    network = timm.create_model("resnet18", num_classes=0, channels=(64, 8, 8, 8))
    network.default_cfg = {"classifier": "classif"}  # as Inception-ResNet's
    state = {**state_of(num_classes=0), "classif.weight": torch.ones(2, 8)}
    assert load_into(network, state, "auto", "w.pth", "x")[1].endswith("classif (1), a head")


@pytest.mark.parametrize(
    "key",
    [
        *("adapter.0.weight", "stem.weight", "backbone2.conv1.weight"),
        *("norm_input.weight", "input_norm.weight", "pre_norm.weight", "stem_bn.bias"),
    ],
)
def test_a_module_beside_the_network_that_may_come_before_it_is_an_error(key):
    state = {f"backbone.{k}": v for k, v in state_of(num_classes=0).items()}
    with pytest.raises(UserError, match=rf"got also {key.partition('.')[0]}: a part"):
        load({"state_dict": {**state, key: torch.ones(2)}})


def test_by_order_leaves_nothing_over_but_a_classifier():
    def renamed(state):
        kinds = [key.rpartition(".")[2] for key in state]
        return {f"_{i}.{kind}": v for i, (kind, v) in enumerate(zip(kinds, state.values()))}

    deeper = state_of("vit_tiny_patch16_224", **VIT | {"depth": 4})
    with pytest.raises(UserError, match="got 0 "):
        load(renamed(deeper), name="vit_tiny_patch16_224", **VIT)
    _, note = load({"model": renamed(state_of())})
    assert note == (
        "matched 100 of 100 tensors by order (other names), from model; "
        "left over in the file: _120 (1), a head, _121 (1), a head"
    )


# -- where the network is --------------------------------------------------------------------------

Q, K = 1, 2  # seeds of the network that is trained, and of its average


def under(prefix, seed):
    return {prefix + key: value for key, value in state_of(seed=seed, num_classes=0).items()}


PLACES = {
    "timm's average": ({"state_dict": under("", Q), "state_dict_ema": under("", K)}, K, Q),
    "model and model_ema": ({"model": under("module.", Q), "model_ema": under("", K)}, K, Q),
    "net": ({"net": under("module.", Q), "acc": 9.0}, Q, None),
    "network": ({"network": {"state": under("", Q)}}, Q, None),
    "VISSL": (
        {
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": under("_feature_blocks.", Q),
                        "heads": {"0.clf.weight": torch.ones(2, 2)},
                    }
                }
            }
        },
        Q,
        None,
    ),
    # Its published evaluation takes the query encoder.
    "MoCo": (
        {
            "state_dict": {
                **under("module.encoder_q.", Q),
                **under("module.encoder_k.", K),
                "module.encoder_q.fc.0.weight": torch.ones(2, 2),
                "module.queue": torch.ones(2, 2),
                "module.queue_ptr": torch.zeros(1, dtype=torch.long),
            }
        },
        Q,
        K,
    ),
    "MoCo, the query alone": ({"state_dict": under("module.encoder_q.", Q)}, Q, None),
    "MoCo v3": (
        {
            "state_dict": {
                **under("module.base_encoder.", Q),
                **under("module.momentum_encoder.", K),
            }
        },
        Q,
        K,
    ),
    "lightly": ({**under("backbone.", Q), **under("backbone_momentum.", K)}, K, Q),
    "lightly's DINO": ({**under("student_backbone.", Q), **under("teacher_backbone.", K)}, K, Q),
    "SimSiam": (
        {"state_dict": {**under("module.encoder.", Q), "module.predictor.0.weight": torch.ones(2)}},
        Q,
        None,
    ),
    "BYOL": ({**under("online_network.encoder.", Q), **under("target_network.encoder.", K)}, Q, K),
    "MMPretrain": (
        {"meta": {}, "state_dict": {**under("backbone.", Q), "neck.0.weight": torch.ones(2)}},
        Q,
        None,
    ),
    "a sharded, compiled one": (
        {"model": under("_fsdp_wrapped_module._orig_mod.module.model.", Q)},
        Q,
        None,
    ),
    "torch's average": ({**under("module.", Q), "n_averaged": torch.tensor(3)}, Q, None),
    "a module of one's own": ({"weights": {"ours": under("a.b.c.", Q)}}, Q, None),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_network_is_found_wherever_a_program_put_it(name):
    content, taken, other = PLACES[name]
    network, note = load(content)
    assert same(network, state_of(seed=taken, num_classes=0))
    assert note.startswith("matched 100 of 100 tensors by name, from ")
    for which, seed in (("student", Q), ("teacher", K)) if other else ():
        assert same(load(content, which)[0], state_of(seed=seed, num_classes=0))
        assert "also in the file: a " in note
    if not other and name not in ("MoCo, the query alone",):
        assert same(load(content, "student")[0], state_of(seed=taken, num_classes=0))


def test_two_networks_of_one_name_are_listed():
    content = {"state_dict": {**under("left.", 1), **under("right.", 2)}}
    with pytest.raises(UserError, match=r"one network, got 2: state_dict.left, state_dict.right"):
        load(content)
    load({"state_dict": {**under("left.encoder.", 1), **under("right.backbone.", 1)}})  # the same


def test_a_teacher_of_another_architecture_is_an_error_that_offers_the_student():
    teacher = {f"teacher.{k}": v for k, v in state_of("resnet50").items()}
    content = {**under("student.", Q), **teacher}
    with pytest.raises(UserError, match="choose the file's student with :student"):
        load(content)
    assert same(load(content, "student")[0], state_of(seed=Q, num_classes=0))


@pytest.mark.parametrize("half", ["encoder.", "momentum_encoder."])
def test_half_a_network_is_an_error_that_names_what_is_missing(half):
    content = {**under("encoder.", Q), **under("momentum_encoder.", K)}
    content = {k: v for k, v in content.items() if not k.startswith(f"{half}layer4.")}
    which = "teacher" if "momentum" in half else "student"
    with pytest.raises(UserError, match="got 75 .25 missing.*layer4.0.conv1.weight.* and 22 more"):
        load(content, which)
    load(content, {"teacher": "student", "student": "teacher"}[which])


@pytest.mark.parametrize("chunk", [3, 2, 1])
@pytest.mark.parametrize("padded", [True, False])
def test_the_chunked_blocks_of_dinov2s_training(chunk, padded):
    """Each chunk is padded to the whole network's numbers, or counts from zero."""
    state = state_of(PLAIN, **V2)
    changed = {"mask_token": torch.zeros(1, 32)}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            number = int(parts[1])
            inner = number if padded else number % chunk
            parts[1] = f"{number // chunk}.{inner}"
        changed[f"backbone.{'.'.join(parts)}"] = value
    changed["backbone.mask_token"] = changed.pop("mask_token")
    changed["dino_head.mlp.0.weight"] = changed["ibot_head.mlp.0.weight"] = torch.ones(2, 2)
    network, note = load({"teacher": changed, "iteration": 3}, name=PLAIN, **V2)
    assert same(network, state)
    assert f"matched {len(state)} of {len(state)} tensors by name, from teacher.backbone" in note
    for left in ("mask_token (1), of masked", "dino_head (1), a head", "ibot_head (1), a head"):
        assert left in note
    deeper = {k.replace("blocks.0.0.", "blocks.9.9."): v for k, v in changed.items()}
    with pytest.raises(UserError, match="the file also has blocks.[39]: a deeper network"):
        load({"teacher": {**changed, **deeper}}, name=PLAIN, **V2)


def test_the_embedder_says_what_it_took(tmp_path):
    torch.save({"model": timm.create_model("resnet18").state_dict()}, tmp_path / "w.pth")
    embedder = make_embedder(f"resnet18:{tmp_path / 'w.pth'}")
    assert embedder.note == (
        "matched 100 of 100 tensors by name, from model; left over in the file: fc (2), a head"
    )
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"resnet18 in w.pth: .*layer1\.2"):
        make_embedder(f"resnet18:{tmp_path / 'w.pth'}")
