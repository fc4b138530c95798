"""Load the weights of others into a network: every tensor of both is accounted for, or an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from solo_ood.embedding.leftovers import (
    WITH_REGISTERS,
    WITHOUT_REGISTERS,
    check_beside,
    check_inside,
    has_registers,
)
from solo_ood.embedding.matching import Match, Target, problem_with
from solo_ood.embedding.places import (
    WHICH,
    Found,
    by_role,
    choose,
    find_networks,
    other_networks,
    tables,
)
from solo_ood.errors import UserError, unknown_name
from solo_ood.files.checkpoint import Unreadable, read

REMEDY = "Name the architecture that the file was saved from."
CHOOSE = ":{}"  # of solo-ood measure, after the file
SAME_RUN = "Give a checkpoint and the args.json of the same run."

_LIGHTNING = "pytorch-lightning_version"


def load_file(
    network: nn.Module,
    path: Path,
    which: str,
    name: str,
    remedy: str = REMEDY,
    to_choose: str = CHOOSE,
) -> tuple[str, str]:
    """Fill ``network`` from a file, or raise; return the role of what was taken, and a note.

    Takes safetensors and torch files: plain state dicts, and checkpoints of training programs. The
    network is found by the names of its own tensors, whatever dictionaries and modules it is in.
    Every tensor of it must be there, and what the file has left over must be known: heads,
    decoders, mask tokens, other networks.

    Args:
        network: changed in place, unless this raises.
        path: the file.
        which: ``teacher`` (also a momentum encoder, or an average), ``student``, or ``auto``: the
            teacher if there is one, except where published evaluations take the other, as with
            MoCo's ``encoder_q``. A file of one network that is neither gives it whatever this says.
        name: of the network, for messages.
        remedy: what to do about weights of another network.
        to_choose: how the user of this program asks for the network ``{}`` of a file.

    Returns:
        ``teacher``, ``student`` or ``""``, and how many tensors matched, how, and from where.

    Raises:
        UserError: for a missing file, one that is no state dict, without what was asked for, or
            with weights of another network.
    """
    if which not in WHICH:
        raise unknown_name("network of a checkpoint", which, WHICH)
    loaded = _load(path)
    return load_into(network, loaded, which, path.name, f"{name} in {path.name}", remedy, to_choose)


def load_into(
    network: nn.Module,
    loaded: Mapping[str, Any],
    which: str,
    file: str,
    name: str,
    remedy: str = REMEDY,
    to_choose: str = CHOOSE,
) -> tuple[str, str]:
    """Do what ``load_file`` does, with the content of a file."""
    target = Target(network)
    states = list(tables(loaded))
    if not states:
        raise _no_state_dict(file, f"{len(loaded)} entries, none of them a tensor")
    everything = find_networks(target, states)
    networks = by_role(everything, _LIGHTNING in loaded, file)
    role = choose(networks, which, file)
    found = networks[role]
    fit = found.fit
    others = {other: network.place for other, network in networks.items() if other != role}
    if fit.absent(target):
        choices = "".join(
            f" Or choose the file's {other} with {to_choose.format(other)}." for other in others
        )
        raise _mismatch(target, fit, name, remedy, choices)
    if fit.how == "by name":
        left = check_inside(fit.left, target.own, target.heads, name, remedy)
    else:
        heads = Counter(key.rpartition(".")[0] for key in fit.left)
        left = [f"{head} ({count}), a head" for head, count in heads.items()]
    left += check_beside(other_networks(found, everything), name)
    _check_values(target, fit, name)
    network.load_state_dict(fit.pairs, strict=False)
    return role, _note(target, found, left, others, to_choose)


def _note(
    target: Target, found: Found, left: list[str], others: Mapping[str, str], to_choose: str
) -> str:
    counted, pairs = target.counted, found.fit.pairs
    taken = sum(key in pairs for key in counted)
    parts = [f"matched {taken} of {len(counted)} tensors {found.fit.how}"]
    if found.place:
        parts[0] += f", from {found.place}"
    if found.fit.converted:
        parts.append(f"converted: {', '.join(found.fit.converted)}")
    if taken < len(counted):
        parts.append(f"not in the file: {', '.join(k for k in counted if k not in pairs)}")
    parts += [
        f"also in the file: a {role}, {place} ({to_choose.format(role)} chooses it)"
        for role, place in others.items()
    ]
    if left:
        parts.append(f"left over in the file: {', '.join(left)}")
    return "; ".join(parts)


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(
            "weights",
            expected="a file",
            got=f"no file {path}",
            remedy=f"Check its spelling; relative paths count from {Path.cwd()}.",
        )
    try:
        loaded = _safetensors(path) if _is_safetensors(path) else read(path)
    except Unreadable as error:
        raise _no_state_dict(path.name, str(error), error.remedy) from error
    if not isinstance(loaded, Mapping):
        raise _no_state_dict(path.name, type(loaded).__name__)
    return loaded


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as this format does, whatever its name: a length, and then JSON."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise Unreadable(str(error), "Check that you may read it.") from error
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file as load_safetensors

    try:
        return load_safetensors(path)
    except Exception as error:  # whatever it raises for another file is the reason
        raise Unreadable(str(error).strip().split("\n")[0], "Copy it again.") from error


def _mismatch(target: Target, fit: Match, name: str, remedy: str, choices: str) -> UserError:
    own, absent = target.own, fit.absent(target)
    shapes = [key for key in absent if key in fit.state]
    missing = [key for key in absent if key not in fit.state]
    named = len(target.required) - len(absent)
    got = f"{named} ({len(missing)} missing, {len(shapes)} of another shape)"
    if shapes:
        key = shapes[0]
        got += f"; {key} has shape {_shape(own[key])}, in the file {_shape(fit.state[key])}"
    for what, keys in (("missing", missing), ("the file has", fit.left)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            got += f"; {what} {', '.join(keys[:3])}{more}"
    if has_registers(missing):
        remedy = WITHOUT_REGISTERS
    elif has_registers(fit.left):
        remedy = WITH_REGISTERS
    return UserError(
        f"weights for {name}",
        expected=f"all {len(target.required)} tensors of the network",
        got=got,
        remedy=remedy + choices,
    )


def _check_values(target: Target, fit: Match, name: str) -> None:
    """Raise ``UserError`` for what ``load_state_dict`` would round, or could not copy."""
    real = (key for key, tensor in target.own.items() if tensor.is_floating_point())
    wrong = {key: why for key in real if key in fit.pairs and (why := problem_with(fit.pairs[key]))}
    if wrong:
        key = next(iter(wrong))
        raise UserError(
            f"weights for {name}",
            expected="finite numbers with a floating point in all tensors",
            got=f"{key} with {wrong[key]}" + f" and {len(wrong) - 1} more" * (len(wrong) > 1),
            remedy="Save the weights again, in float32 and before any quantization.",
        )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _no_state_dict(
    file: str, got: str, remedy: str = "Save the network's state_dict() alone."
) -> UserError:
    return UserError(
        f"weights {file}",
        expected="a state dict, written by torch.save or safetensors",
        got=got,
        remedy=remedy,
    )
