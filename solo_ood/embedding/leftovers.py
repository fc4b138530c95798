"""Check the tensors of a file that the network did not take: known, or an error.

A file of a deeper network of the same family holds all tensors of the smaller one. Only what is
left over tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from solo_ood.errors import UserError

WITH_REGISTERS = "Name the network with registers, such as dinov2_vits14_reg."
WITHOUT_REGISTERS = "Name the network without registers, such as dinov2_vits14."

# A word of these is a whole part of a name between "_": `dino_head`, `head`, `momentum_projector`.
_KINDS = {
    "a head": "heads?|fc[0-9]*|classifiers?|linear|last|logits|projectors?|projections?|proj|"
    "predictors?[0-9]*|predictions?|pred|prototypes?[0-9]*|mlp|aux|jigsaw",
    "a decoder": "decoders?|decode",
    "of masked training": "mask|masked",
    "a state of its training": "queues?|ptr|memory|bank|center|centers|loss|criterion|temperature|"
    "temp|scale|lambda|tau|metrics?|assignments|step|steps|epoch|ema|n_averaged",
}
_BOOKKEEPING = frozenset(
    "num_batches_tracked relative_position_index relative_coords_table attn_mask bias_mask periods "
    "freqs_cos freqs_sin total_ops total_params n_averaged".split()
)
_REGISTERS = ("reg_token", "register_tokens", "storage_tokens", "registers")
# Beside a network, where nothing changes its features: what follows it, and other networks.
_BESIDE = {
    "a module after it": "neck|bn|norm|whitening|rpn|roi|bbox|segmentation|upsample",
    "another network": "momentum|teacher|student|target|online|key|query|text|language|token|"
    "transformer|positional|ln|logit|generator|discriminator|encoder|backbone",
}
# With one of these a name is no head's: `conv_head` of EfficientNet, `fc_norm`, `patch_proj`.
_NO_HEAD = frozenset("conv norm patch in input pos embed".split())
# With one of these a module comes before the network, and changes its features.
_BEFORE = frozenset("pre in input inputs stem patch embed image".split())
_WRAPPERS = ("model", "module", "net", "network")


def check_inside(
    left: Iterable[str], own: Iterable[str], heads: tuple[str, ...], name: str, remedy: str
) -> list[str]:
    """Return what is left over in the file inside the network, in words.

    Args:
        left: the names of the tensors that the network does not have.
        own: the names of those that it has.
        heads: how its family calls what classifies.
        name: of network and file, for the message.
        remedy: what to do about another network.

    Raises:
        UserError: if one belongs to no head, decoder or bookkeeping.
    """
    branches = {tuple(parts[:n]) for parts in map(_parts, own) for n in range(1, len(parts) + 1)}
    known: dict[tuple[str, str], int] = {}
    unknown: dict[str, int] = {}
    for key in left:
        parts = _parts(key)
        if parts[-1] in _BOOKKEEPING:
            continue
        kind = "a head" if key.rpartition(".")[0] in heads else _module_kind(parts[0], _KINDS)
        if kind:
            known[parts[0], kind] = known.get((parts[0], kind), 0) + 1
            continue
        depth = next((n for n in range(1, len(parts)) if parts[:n] not in branches), len(parts))
        block = ".".join(parts[:depth])
        unknown[block] = unknown.get(block, 0) + 1
    if unknown:
        raise _unknown_tensors_error(unknown, name, remedy)
    return _as_text(known)


def check_beside(beside: Iterable[tuple[str, ...]], name: str) -> list[str]:
    """Return what else stands in the module that holds the network, in words.

    Args:
        beside: the names of its tensors, in parts, from where they differ from the network's.
        name: of network and file, for the message.

    Raises:
        UserError: if one belongs to a module that may come before the network or change it.
    """
    known: dict[tuple[str, str], int] = {}
    unknown: dict[str, int] = {}
    for parts in beside:
        if parts[-1] in _BOOKKEEPING:
            continue
        part = next((part for part in parts if part not in _WRAPPERS), parts[0])
        kind = _module_kind(part, {**_KINDS, **_BESIDE})
        if kind:
            known[part, kind] = known.get((part, kind), 0) + 1
        else:
            unknown[part] = unknown.get(part, 0) + 1
    if unknown:
        remedy = "If the network's features do not need it, save the network's state_dict() alone."
        raise UserError(
            f"weights for {name}",
            expected="a network, and beside it heads, decoders and other networks",
            got=f"also {_listed(unknown)}: a part of the network?",
            remedy=remedy,
        )
    return _as_text(known)


def _module_kind(part: str, kinds: dict[str, str]) -> str:
    words = part.lower().strip("_").split("_")
    for kind, pattern in kinds.items():
        if kind == "a head" and not _NO_HEAD.isdisjoint(words):
            continue
        if kind == "a module after it" and not _BEFORE.isdisjoint(words):
            continue
        if any(re.fullmatch(pattern, word) for word in words):
            return kind
    return ""


def _unknown_tensors_error(unknown: dict[str, int], name: str, remedy: str) -> UserError:
    deeper = any(block.rpartition(".")[2].isdigit() for block in unknown)
    guess = "a deeper network?" if deeper else "another variant of the network?"
    if has_registers(unknown):
        guess, remedy = "a network with registers?", WITH_REGISTERS
    return UserError(
        f"weights for {name}",
        expected="the tensors of the network, beside heads, decoders and mask tokens",
        got=f"all of them, but the file also has {_listed(unknown)}: {guess}",
        remedy=remedy,
    )


def has_registers(names: Iterable[str]) -> bool:
    """Whether a vision transformer's registers are among these tensors."""
    return any(name.rpartition(".")[2] in _REGISTERS for name in names)


def _listed(counts: dict[str, int], most: int = 3) -> str:
    shown = ", ".join(list(counts)[:most])
    return shown + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _as_text(known: dict[tuple[str, str], int]) -> list[str]:
    return [f"{part} ({count}), {kind}" for (part, kind), count in known.items()]


def _parts(key: str) -> tuple[str, ...]:
    return tuple(key.split("."))
