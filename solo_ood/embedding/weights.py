"""Read the weights that others saved, and load them into a network: all of them, or an error."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from solo_ood.errors import UserError, unknown_name
from solo_ood.loading import Unreadable, read

WHICH = ("teacher", "student", "auto")

_WRAPPERS = ("state_dict", "model", "teacher", "student")
_KEY = re.compile(
    r"(?:(?:state_dict|model|module)\.)*"
    r"(?:(?P<role>teacher|student)\.)?(?:module\.)*"
    r"(?:(?P<momentum>momentum_)?(?P<core>backbone|encoder)\.)?(?:module\.)*"
    r"(?P<name>.+)"
)
_LIGHTNING = "pytorch-lightning_version"
_HEADS = ("fc", "head", "head_dist", "classifier", "last", "last_layer")
_BY_NAME = 0.1  # below this share of equal names, the file has names of its own


def read_state_dict(path: Path, which: str = "teacher") -> dict[str, Tensor]:
    """Return the tensors of one network in a file: ``read_networks`` and ``choose`` in one.

    Args:
        path: the file.
        which: ``teacher``, ``student`` or ``auto``, see ``choose``.

    Raises:
        UserError: for a missing file, one that is no state dict, or without what was asked for.
    """
    networks = read_networks(path)
    return networks[choose(networks, which, path.name)]


def read_networks(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of ``teacher`` and ``student``, or of ``""``: one that is neither.

    Takes safetensors and torch files: plain state dicts, official DINO and DINOv2 checkpoints,
    Lightning checkpoints of solo-learn. Their wrappers and prefixes are taken off, and what stands
    beside a backbone (projection heads, online classifiers) is left out.

    Raises:
        UserError: for a missing file or one that is no state dict.
    """
    loaded = _load(path)
    parsed = [(match, tensor) for key, tensor in _tensors(loaded) if (match := _KEY.fullmatch(key))]
    has_core = any(match["core"] for match, _ in parsed)
    is_pair = _LIGHTNING in loaded or any(match["momentum"] for match, _ in parsed)
    networks: dict[str, dict[str, Tensor]] = {}
    for match, tensor in parsed:
        if has_core and not match["core"]:
            continue
        role = match["role"] or ("teacher" if match["momentum"] else "")
        if not role and has_core and is_pair:
            role = "student"
        networks.setdefault(role, {})[match["name"]] = tensor
    if not networks:
        raise _no_state_dict(path, f"{len(loaded)} entries, none of them a tensor")
    return networks


def choose(networks: Mapping[str, Any], which: str, name: str) -> str:
    """Return the key of ``networks`` that ``which`` means.

    Args:
        networks: what ``read_networks`` returned.
        which: ``teacher``, ``student``, or ``auto``: the teacher if there is one. A file of one
            network that is neither gives that one whatever this says.
        name: of the file, for the message.

    Raises:
        UserError: if it is not there.
    """
    if which not in WHICH:
        raise unknown_name("network of a checkpoint", which, WHICH)
    for role in ("teacher", "student", "") if which == "auto" else (which, ""):
        if role in networks:
            return role
    raise UserError(
        f"weights {name}",
        expected=f"a {which}",
        got=f"only a {' and a '.join(networks)}",
        remedy=f"Use the {next(iter(networks))}.",
    )


def load_weights(network: nn.Module, state: Mapping[str, Tensor], name: str) -> str:
    """Load ``state`` into ``network``, by name or else by order, and return a line that says how.

    All tensors but a classifier's and ``num_batches_tracked`` must be there with their shapes;
    timm's own converters (DINOv2's names, position embeddings of another size) get a try first. By
    order means that the names are others, but shapes, kinds and order of all tensors are the same.

    Args:
        network: changed in place, unless this raises.
        state: what ``read_state_dict`` returned.
        name: of the network or file, for the message.

    Raises:
        UserError: if a tensor is missing or has another shape; says how many matched.
    """
    own = network.state_dict()
    required = [key for key in own if _is_required(key, network)]
    matched = _by_name(own, state)
    if not matched.keys() >= set(required):
        converted = _converted(network, state)
        if len(_by_name(own, converted)) > len(matched):
            state, matched = converted, _by_name(own, converted)
    how = "by name"
    named = sum(key in matched for key in required)
    if named <= _BY_NAME * len(required):
        by_order = _by_order(own, required, state)
        if by_order:
            matched, named, how = by_order, len(required), "by order (other names)"
    if named < len(required):
        raise _mismatch(own, required, state, named, name)
    network.load_state_dict(matched, strict=False)
    total = [key for key in own if not key.endswith("num_batches_tracked")]
    missing = [key for key in total if key not in matched]
    note = f"{len(total) - len(missing)} of {len(total)} tensors {how}"
    return note + (f"; not in the file: {', '.join(missing)}" if missing else "")


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(
            "weights",
            expected="a file",
            got=f"no file {path}",
            remedy=f"Check its spelling; relative paths count from {Path.cwd()}.",
        )
    try:
        loaded = _safetensors(path) if path.suffix == ".safetensors" else read(path)
    except Unreadable as error:
        raise _no_state_dict(path, str(error)) from error
    if not isinstance(loaded, Mapping):
        raise _no_state_dict(path, type(loaded).__name__)
    return loaded


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # whatever it raises for another file is the reason
        raise Unreadable(str(error).strip().split("\n")[0], "Use another one.") from error


def _tensors(loaded: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """Return the tensors under dotted keys: those in wrappers if there are any, else the rest."""
    wrapped = [
        (f"{wrapper}.{key}", tensor)
        for wrapper in _WRAPPERS
        if isinstance(loaded.get(wrapper), Mapping)
        for key, tensor in _tensors(loaded[wrapper])
    ]
    # torch.compile puts `_orig_mod.` wherever a compiled module was.
    plain = [(str(k).replace("_orig_mod.", ""), v) for k, v in loaded.items()]
    return wrapped or [(key, value) for key, value in plain if isinstance(value, Tensor)]


def _is_required(key: str, network: nn.Module) -> bool:
    cfg = getattr(network, "default_cfg", None) or {}
    heads = cfg.get("classifier") or _HEADS
    heads = (heads,) if isinstance(heads, str) else heads
    return not key.endswith("num_batches_tracked") and key.rpartition(".")[0] not in heads


def _by_name(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: state[k] for k in own if k in state and state[k].shape == own[k].shape}


def _converted(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return ``state`` as timm's converter for this family makes it, or as it is."""
    for cls in type(network).__mro__:
        convert = getattr(sys.modules[cls.__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            try:
                return convert(dict(state), network)
            except Exception:  # a file of another network, which the caller's message describes
                return state
    return state


def _by_order(
    own: Mapping[str, Tensor], required: list[str], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Pair the tensors in order; ``{}`` unless all agree but a classifier at the file's end."""
    theirs = [key for key in state if not key.endswith("num_batches_tracked")]
    wanted = [key for key in own if not key.endswith("num_batches_tracked")]
    if wanted[: len(required)] != required:  # a classifier in between: which is it in the file?
        return {}

    def same(mine: str, other: str) -> bool:
        # The last part of a name tells weight from bias, which have the same shape in a BatchNorm.
        kind = mine.rpartition(".")[2] == other.rpartition(".")[2]
        return kind and own[mine].shape == state[other].shape

    head = theirs[len(required) :]
    if len(theirs) < len(required) or len(head) > 2 or any(state[key].ndim > 2 for key in head):
        return {}
    if not all(same(mine, other) for mine, other in zip(required, theirs)):
        return {}
    return {mine: state[other] for mine, other in zip(wanted, theirs) if same(mine, other)}


def _mismatch(
    own: Mapping[str, Tensor],
    required: list[str],
    state: Mapping[str, Tensor],
    named: int,
    name: str,
) -> UserError:
    shapes = [key for key in required if key in state and state[key].shape != own[key].shape]
    absent = [key for key in required if key not in state]
    extra = [key for key in state if key not in own]
    got = f"{named} ({len(absent)} missing, {len(shapes)} of another shape)"
    if shapes:
        key = shapes[0]
        got += f"; {key} has shape {_shape(own[key])}, in the file {_shape(state[key])}"
    if absent:
        got += f"; missing {', '.join(absent[:3])}"
    if extra:
        got += f"; the file has {', '.join(extra[:3])}"
    return UserError(
        f"weights for {name}",
        expected=f"all {len(required)} tensors of the network",
        got=got,
        remedy="Name the architecture that the file was saved from.",
    )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _no_state_dict(path: Path, got: str) -> UserError:
    return UserError(
        f"weights {path.name}",
        expected="a state dict, written by torch.save or safetensors",
        got=got,
        remedy="Save the network's state_dict() alone.",
    )
