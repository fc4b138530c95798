"""One field of the configuration: its default, what it means and its range, all in one place."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import Field, field, fields
from typing import Any

from solo_ood.errors import short_repr

_LEAST_POWER = 2**16  # powers of two from here on are shown as such

# The names of pydantic and annotated-types; in each pair, the bracket of an interval.
_LOWER = {"ge": (operator.ge, "[", "at least"), "gt": (operator.gt, "(", "above")}
_UPPER = {"le": (operator.le, "]", "at most"), "lt": (operator.lt, ")", "below")}


def setting(default: Any, help: str = "", choices: Any = None, **bounds: Any) -> Any:
    """Return a dataclass field.

    Args:
        default: its value where the user gives none.
        help: what it is, with its unit; after a semicolon, what ``null`` stands for.
        choices: the names that it can be, to what each means: a text, or an entry of a table that
            has one as ``help``. The table is read when it is needed, so that it can grow.
        bounds: ``ge``, ``gt``, ``le``, ``lt``, each a number or the name of another field of the
            same section; of a list, those of its elements. ``null`` is in every range.
    """
    unknown = bounds.keys() - _LOWER.keys() - _UPPER.keys()
    if unknown:
        raise TypeError(f"setting() got an unknown bound: {', '.join(sorted(unknown))}")
    return field(default=default, metadata={"help": help, "choices": choices, "bounds": bounds})


def choices_of(f: Field[Any]) -> Mapping[str, Any] | None:
    """Return the names that a field can be, to their meanings; ``None`` if it is no name."""
    return f.metadata.get("choices")


def help_of(f: Field[Any]) -> str:
    """Return the comment of a field: what it is, the names or the range that it can have."""
    first, semicolon, rest = f.metadata.get("help", "").partition(";")
    text = " ".join(filter(None, [first, _names(choices_of(f) or {})]))
    return ", ".join(filter(None, [text, range_of(f)])) + semicolon + rest


def bound_of(schema: type, name: str, key: str) -> Any:
    """Return the bound ``key`` (``ge``, ``gt``, ``le``, ``lt``) of a dataclass's field."""
    return next(f for f in fields(schema) if f.name == name).metadata["bounds"][key]


def _names(choices: Mapping[str, Any]) -> str:
    helps = {name: getattr(about, "help", about) for name, about in choices.items()}
    return " | ".join(f"{name} ({text})" if text else name for name, text in helps.items())


def is_in_range(f: Field[Any], section: Any) -> bool:
    """Whether the value that ``section``, an instance of the dataclass, has is one of the range."""
    value, bounds = getattr(section, f.name), f.metadata.get("bounds", {})
    if value is None or not bounds:
        return True
    if isinstance(value, list):  # OmegaConf lets lists pass as elements
        return all(isinstance(item, int) and _holds(item, bounds, section) for item in value)
    # A text is no list: OmegaConf lets that of an interpolation pass as one.
    return not isinstance(value, str) and _holds(value, bounds, section)


def _holds(value: Any, bounds: Mapping[str, Any], section: Any) -> bool:
    compare = {**_LOWER, **_UPPER}
    return all(compare[key][0](value, _number(bounds[key], section)) for key in bounds)


def _number(bound: Any, section: Any) -> Any:
    return getattr(section, bound) if isinstance(bound, str) else bound


def range_of(f: Field[Any], section: Any = None, path: str = "") -> str:
    """Return the range in words, such as ``in [0, 1)``; nothing for a field without one.

    Args:
        f: the field.
        section: an instance of the dataclass, to show the values of the fields that bound it.
        path: of the section, before their names.
    """
    bounds = f.metadata.get("bounds", {})
    low, high = ([key for key in pair if key in bounds] for pair in (_LOWER, _UPPER))

    def text(key: str) -> str:
        bound = bounds[key]
        if not isinstance(bound, str):
            return _text(bound)
        return f"{path}{bound}" + (f" = {short_repr(_number(bound, section))}" if section else "")

    words = {**_LOWER, **_UPPER}
    if low and high:
        start, end = _LOWER[low[0]][1], _UPPER[high[0]][1]
        return f"in {start}{text(low[0])}, {text(high[0])}{end}"
    return "".join(f"{words[key][2]} {text(key)}" for key in low + high)


def _text(number: float) -> str:
    if isinstance(number, int) and number >= _LEAST_POWER and number & (number - 1) == 0:
        return f"2^{number.bit_length() - 1}"
    return f"{number:g}".replace("e+0", "e")
