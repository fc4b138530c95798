"""Pair the tensors of a network with those of a state dict: by name, converted, or by order."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]

_HEADS = ("fc", "head", "head_dist", "classifier", "last", "last_layer")
_BY_NAME = 0.1  # below this share of equal names, the file has names of its own
_COUNTER = "num_batches_tracked"
_CHUNKED = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")
_OF_PLACES = re.compile(r"pos|attention_bias")  # what has another size for another image size


class Target:
    """The network that is to be filled.

    Attributes:
        network: it.
        own: its tensors by name.
        heads: the names of the modules that classify, in it or in a file.
        counted: the names of its tensors but for counters of batches.
        required: the names of those that a file must have: all but a classifier's and counters.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.own: State = network.state_dict()
        cfg = getattr(network, "default_cfg", None) or {}
        heads = cfg.get("classifier") or _HEADS
        self.heads: tuple[str, ...] = (heads,) if isinstance(heads, str) else tuple(heads)
        self.counted = [key for key in self.own if not key.endswith(_COUNTER)]
        self.required = [key for key in self.counted if key.rpartition(".")[0] not in self.heads]


@dataclass
class Match:
    """What of a state dict fits a network.

    Attributes:
        pairs: tensors of the file by the network's names, all of equal shape.
        state: tensors of the file, by the names under which they were compared.
        left: the names in ``state`` that the network does not have.
        named: how many of the tensors that the network requires have their name in ``state``.
        how: "by name" or "by order (other names)".
        converted: position embeddings that timm brought to the network's size.
    """

    pairs: State
    state: State
    left: list[str]
    named: int = 0
    how: str = "by name"
    converted: list[str] = field(default_factory=list)

    def absent(self, target: Target) -> list[str]:
        """Return the names of the required tensors that have no partner."""
        return [key for key in target.required if key not in self.pairs]


def match(target: Target, state: State) -> Match:
    """Return the best way to pair ``state`` with the network, which may leave tensors out.

    By name first. Then by the names that timm's converters and the undoing of DINOv2's chunks give,
    which also bring position embeddings to the network's size. By order means that the names are
    others, but shapes, kinds and order of all tensors are the same.
    """
    best = _by_name(target, state)
    if not best.absent(target):
        return best
    plain = _unchunked(target, state)
    for changed in (plain, _converted(target, plain)):
        other = _by_name(target, changed)
        if len(other.pairs) > len(best.pairs):
            best = other
    if best.absent(target):
        named = len(target.required) - len(best.absent(target))
        if named <= _BY_NAME * len(target.required):
            return _by_order(target, state) or best
    known = (key for key in best.pairs if key in plain)
    best.converted = [key for key in known if best.pairs[key].numel() != plain[key].numel()]
    return best


def problem_with(tensor: Tensor) -> str:
    """Return why a tensor cannot be a weight, in a few words; "" if it can."""
    if tensor.is_meta:
        return "no values (meta)"
    if tensor.layout != torch.strided:
        return f"the layout {str(tensor.layout).removeprefix('torch.')}"
    if not tensor.is_floating_point():
        return f"values of the type {str(tensor.dtype).removeprefix('torch.')}"
    if not tensor.float().isfinite().all():  # as the network takes it: float8 knows no `isfinite`
        return "values that are not finite"
    return ""


def _by_name(target: Target, state: State) -> Match:
    own = target.own
    pairs = {k: state[k] for k in own if k in state and state[k].shape == own[k].shape}
    left = [key for key in state if key not in own]
    return Match(pairs, state, left, sum(key in state for key in target.required))


def _unchunked(target: Target, state: State) -> State:
    """Return ``state`` with ``blocks.CHUNK.N.`` of DINOv2's training as ``blocks.N.``.

    EfficientNets have ``blocks.STAGE.N.`` of their own.
    """
    found = {key: hit for key in state if (hit := _CHUNKED.fullmatch(key))}
    if not found or any(_CHUNKED.fullmatch(key) for key in target.own):
        return state
    places = sorted({(int(hit[1]), int(hit[2])) for hit in found.values()})
    number = {place: place[1] for place in places}
    if len(set(number.values())) < len(places):  # each chunk counts from zero
        number = {place: i for i, place in enumerate(places)}
    names = {
        key: f"blocks.{number[int(hit[1]), int(hit[2])]}.{hit[3]}" for key, hit in found.items()
    }
    return {names.get(key, key): tensor for key, tensor in state.items()}


def _converted(target: Target, state: State) -> State:
    """Return ``state`` as timm's converter for this family makes it, or as it is."""
    for cls in type(target.network).__mro__:
        convert = getattr(sys.modules[cls.__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            try:
                changed = dict(convert(dict(state), target.network))
            except Exception:  # a file of another network, which the caller's message describes
                return state
            # It also brings patch embeddings to another patch size, which makes another network.
            for key, tensor in changed.items():
                before = state.get(key, tensor)
                if before.numel() != tensor.numel() and not _OF_PLACES.search(key):
                    changed[key] = before
            return changed
    return state


def _by_order(target: Target, state: State) -> Match | None:
    """Pair the tensors in order; ``None`` unless all agree but a classifier at the file's end."""
    own, required = target.own, target.required
    theirs = [key for key in state if not key.endswith(_COUNTER)]
    if target.counted[: len(required)] != required:  # a classifier in between: which is it there?
        return None

    def same(mine: str, other: str) -> bool:
        # The last part of a name tells weight from bias, which have the same shape in a BatchNorm.
        kind = mine.rpartition(".")[2] == other.rpartition(".")[2]
        return kind and own[mine].shape == state[other].shape

    head = theirs[len(required) :]
    if len(theirs) < len(required) or not _is_classifier(head, state):
        return None
    if not all(same(mine, other) for mine, other in zip(required, theirs)):
        return None
    pairs = {m: state[other] for m, other in zip(target.counted, theirs) if same(m, other)}
    left = theirs[len(pairs) :]
    return Match(pairs, state, left, len(required), "by order (other names)")


def _is_classifier(names: list[str], state: State) -> bool:
    """Whether these tensors, the last of a file, are the weight and bias of a linear layer."""
    if not names:
        return True
    weight = state[names[0]]
    kinds = [name.rpartition(".")[2] for name in names]
    if kinds not in (["weight"], ["weight", "bias"]) or weight.ndim != 2:
        return False
    return len(names) == 1 or state[names[1]].shape == weight.shape[:1]
