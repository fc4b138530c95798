"""What ``ranking.json`` keeps of how a list was asked for, so that it can be made again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from solo_ood.errors import UserError
from solo_ood.mining.options import RankOptions
from solo_ood.options.field import Option, build_options, options_in

FACTS = "ranking.json"


def remembered(options: RankOptions) -> dict[str, Any]:
    """Return the options, and the folder from which their relative paths count, for JSON."""
    kept = replace(options.embedding, cache=options.embedding.folder)
    return {"folder": os.getcwd(), "options": asdict(replace(options, embedding=kept))}


def read_facts(out: Path) -> dict[str, Any]:
    """Return what ``ranking.json`` of a folder of ``solo-ood rank`` says.

    Raises:
        UserError: if there is none, or it does not say how the list was asked for.
    """
    remedy = "Make one by solo-ood rank FRAMES --embedder NETWORK --out DIR."
    try:
        facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
    except OSError as error:
        got = f"no {FACTS} ({error.strerror})" if out.is_dir() else f"no folder {out}"
        raise _no_ranking(out, got, remedy) from error
    except ValueError as error:
        raise _no_ranking(out, f"{FACTS}, which is no JSON: {error}", remedy) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("options"), dict):
        command = facts.get("command") if isinstance(facts, dict) else None
        got = f"one whose {FACTS} does not say how it was asked for"
        raise _no_ranking(out, got, f"Make it again: {command}." if command else remedy)
    return facts


def recalled(facts: dict[str, Any]) -> RankOptions:
    """Return the options of a list; those that are new since then have their defaults.

    Raises:
        UserError: if data or network are not among them.
    """
    saved, values = facts["options"], {}
    for option in options_in(RankOptions):
        holder = saved.get(option.group) if option.group else saved
        if isinstance(holder, dict) and option.name in holder:
            values[option.group, option.name] = _typed(option, holder[option.name])
    try:
        options = build_options(RankOptions, values)
    except TypeError as error:
        remedy = "Make the list again by solo-ood rank."
        raise UserError(FACTS, expected="all options", got=str(error), remedy=remedy) from error
    return replace(options, command=str(saved.get("command", "")))


def _typed(option: Option, value: Any) -> Any:
    read = Path if option.type is Path else (lambda one: one)
    if option.many:
        return tuple(map(read, value))
    return value if value is None else read(value)


def _no_ranking(out: Path, got: str, remedy: str) -> UserError:
    expected = "a folder that solo-ood rank wrote"
    return UserError(str(out), expected=expected, got=got, remedy=remedy)
