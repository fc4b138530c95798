"""Find the networks in what a file holds, and choose one of them: the teacher or the student."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solo_ood.embedding.matching import Match, State, Target, match
from solo_ood.errors import UserError

WHICH = ("teacher", "student", "auto")

# Parts between "_" and before digits: `momentum_encoder`, `backbone_momentum`, `state_dict_ema`.
_TEACHER = re.compile(r"(.*_)?(teacher|momentum|ema|target|averaged|mean)(_.*)?|encoder_k|key_.*")
_STUDENT = re.compile(r"(.*_)?(student|online)(_.*)?|encoder_q|query_.*|base_encoder")
# MoCo, its third version, and BYOL: evaluated is the network that is trained, not its average.
_EVALUATED = re.compile(r"encoder_q|base_encoder|query_.*|online(_.*)?")

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_LIKE = 0.5  # a place with this share of the best one's names holds a network as well
_RENAMED = 0.1  # below this share of the network's names, look for one with other names


@dataclass
class Found:
    """A network of the asked kind in a file.

    Attributes:
        table: the state dict in the file that holds it.
        path: where that state dict is, such as ``("teacher",)``.
        prefix: what its names begin with there, such as ``"module.backbone."``.
        fit: how its tensors fit.
    """

    table: State
    path: tuple[str, ...]
    prefix: str
    fit: Match

    @property
    def place(self) -> str:
        """Path and prefix, with dots."""
        return ".".join((*self.path, self.prefix)).strip(".")


def tables(
    loaded: Mapping[Any, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], State]]:
    """Yield every dictionary in ``loaded`` that holds tensors, and where it is."""
    tensors = {_plain(str(k)): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in loaded.items():
        if isinstance(value, Mapping):
            yield from tables(value, (*path, str(key)))


def _plain(key: str) -> str:
    for wrapper in _WRAPPERS:  # torch puts them wherever a module was compiled or sharded
        key = key.replace(wrapper, "")
    return key


def find_networks(target: Target, tables: list[tuple[tuple[str, ...], State]]) -> list[Found]:
    """Return the places that hold a network like ``target``; if none does, the fullest one."""
    needed = len(target.required)
    places = [
        (path, table, prefix, size)
        for path, table in tables
        for prefix, size in _prefixes(table).items()
        if size >= _RENAMED * needed
    ]
    named = [sum(p + key in table for key in target.required) for _, table, p, _ in places]
    best = max(named, default=0)
    if best > _RENAMED * needed:
        likely = [place for place, count in zip(places, named) if count >= _LIKE * best]
        return [
            Found(table, path, p, match(target, _below(table, p))) for path, table, p, _ in likely
        ]
    whole = [place for place in places if place[3] >= needed]
    found = [Found(table, path, p, match(target, _below(table, p))) for path, table, p, _ in whole]
    complete = [place for place in found if not place.fit.absent(target)]
    if complete:
        return _distinct(complete)
    if found:
        return [max(found, key=lambda place: len(place.fit.pairs))]
    path, table = max(tables, key=lambda item: len(item[1]))
    return [Found(table, path, "", match(target, table))]


def _prefixes(table: State) -> Counter[str]:
    """Count the tensors below each module's name."""
    sizes: Counter[str] = Counter()
    for key in table:
        if not key.endswith("num_batches_tracked"):
            parts = key.split(".")
            sizes.update("".join(f"{part}." for part in parts[:n]) for n in range(len(parts)))
    return sizes


def _below(table: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in table.items() if k.startswith(prefix)}


def _distinct(found: list[Found]) -> list[Found]:
    """Leave out all but the innermost of places that hold the same tensors."""
    last = {frozenset(map(id, place.fit.state.values())): place for place in found}
    return list(last.values())


def by_role(found: list[Found], is_pair: bool, file: str) -> dict[str, Found]:
    """Name the networks of a file, and refuse two of one name."""
    roles = [_role_of((*place.path, *place.prefix.split("."))) for place in found]
    # What stands beside a teacher is a student; so is what a program of solo-learn saved alone.
    wrapped = is_pair and any(place.prefix for place in found)
    if "teacher" in roles or wrapped:
        roles = [role or "student" for role in roles]
    by_role: dict[str, Found] = {}
    for role, place in zip(roles, found):
        if role in by_role and not _equal(by_role[role].fit.pairs, place.fit.pairs):
            places = [other.place for r, other in zip(roles, found) if r == role]
            raise UserError(
                f"weights {file}",
                expected=f"one {role or 'network'}",
                got=f"{len(places)}: {', '.join(place or 'the file itself' for place in places)}",
                remedy="Save the state_dict() of the one that you mean alone.",
            )
        by_role.setdefault(role, place)
    return by_role


def _equal(some: State, others: State) -> bool:
    return some.keys() == others.keys() and all(_same(v, others[k]) for k, v in some.items())


def _same(one: Tensor, other: Tensor) -> bool:
    if one.is_meta or other.is_meta or one.dtype != other.dtype:
        return one is other
    return one.layout == other.layout == torch.strided and torch.equal(one, other)


def choose(by_role: Mapping[str, Found], which: str, file: str) -> str:
    order: tuple[str, ...] = (which, "")
    if which == "auto":
        order = ("teacher", "student", "")
        if "student" in by_role and _is_evaluated(by_role["student"].place):
            order = ("student",)
    for role in order:
        if role in by_role:
            return role
    there = list(by_role)
    raise UserError(
        f"weights {file}",
        expected=f"a {which}",
        got=f"only a {' and a '.join(there)}",
        remedy=f"Use the {there[0]}, which :{there[0]} after the path chooses.",
    )


def other_networks(found: Found, networks: list[Found]) -> Iterator[tuple[str, ...]]:
    """Yield what else is in the state dict of ``found``, from where names differ from its own."""
    own = found.prefix.split(".")[:-1]
    others = tuple(place.prefix for place in networks if place.table is found.table)
    for key in found.table:
        if key.startswith(others):
            continue
        parts = key.split(".")
        same = 0
        while same < min(len(own), len(parts) - 1) and parts[same] == own[same]:
            same += 1
        yield tuple(parts[same:])


def _role_of(parts: Sequence[str]) -> str:
    """Return ``teacher``, ``student`` or ``""`` for a network that stands under these names."""
    for role, pattern in (("teacher", _TEACHER), ("student", _STUDENT)):
        if any(pattern.fullmatch(part.lower()) for part in parts):
            return role
    return ""


def _is_evaluated(place: str) -> bool:
    """Whether published evaluations take this network although there is an average of it."""
    return any(_EVALUATED.fullmatch(part.lower()) for part in place.split("."))
