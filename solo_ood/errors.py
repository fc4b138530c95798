"""One form for every message to the user: what, expected, got, remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def message(what: str, *, expected: Any, got: Any, remedy: str) -> str:
    """Return ``what``, then what was expected, what was found and what to do about it."""
    return f"{what}: expected {expected}, got {got}. {remedy}"


def shown(value: Any, longest: int = 100) -> str:
    """Return ``repr(value)``, cut at ``longest`` characters; its type if it cannot be shown."""
    try:
        text = repr(value)
    except Exception:  # an int of more than 4300 digits, lists nested too deep, classes of others
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def unknown_name(kind: str, name: Any, valid: Iterable[str]) -> str:
    """Return the message for a name that is not in ``valid``, with the nearest valid one."""
    names, got = sorted(valid), shown(name)
    near = get_close_matches(got.strip("'"), names, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Use {names[0]!r}, for instance."
    return message(f"Unknown {kind}", expected=f"one of {', '.join(names)}", got=got, remedy=remedy)
