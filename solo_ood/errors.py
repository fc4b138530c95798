"""One form for every message to the user, what, expected, got, remedy, and one exception."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_NEAR = 0.65  # similarity of a misspelling: "persn" for "person", but not "pedestrian"
_LISTED = 40  # names at most in one message


class UserError(ValueError):
    """What a user can mend: the command line shows it as one line, anything else with its trace.

    Args:
        what: the setting, file or call that is wrong.
        expected: what it has to be.
        got: what it is.
        remedy: what to do about it, as a sentence.
    """

    def __init__(
        self, what: str, *, expected: Any = None, got: Any = None, remedy: str | None = None
    ) -> None:
        if remedy is None:
            # torch makes the exception of a worker process anew, from its trace alone.
            text = what.rpartition(f"{type(self).__name__}: ")[2].strip()
        else:
            text = message(what, expected=expected, got=got, remedy=remedy)
        super().__init__(text)
        self.what, self.expected, self.got, self.remedy = what, str(expected), str(got), remedy

    def __reduce__(self) -> Any:
        # An exception is pickled with its ``args``, here the whole text.
        if self.remedy is None:
            return type(self), self.args
        return _user_error, (self.what, self.expected, self.got, self.remedy)


def _user_error(what: str, expected: str, got: str, remedy: str) -> UserError:
    return UserError(what, expected=expected, got=got, remedy=remedy)


def message(what: str, *, expected: Any, got: Any, remedy: str) -> str:
    """Return ``what``, then what was expected, what was found and what to do about it."""
    return f"{what}: expected {expected}, got {got}. {remedy}"


def short_repr(value: Any, longest: int = 100) -> str:
    """Return ``repr(value)``, cut at ``longest`` characters; its type if it cannot be shown."""
    try:
        text = repr(value)
    except Exception:  # an int of more than 4300 digits, lists nested too deep, classes of others
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def unknown_name(kind: str, name: Any, valid: Iterable[str]) -> UserError:
    """Return the error for a name that is not in ``valid``, with one that is spelt like it."""
    names, got = sorted(valid), short_repr(name)
    near = nearest(got.strip("'"), names)
    remedy = "Use one of these names." if near is None else f"Did you mean {near!r}?"
    listed = ", ".join(names[:_LISTED])
    if len(names) > _LISTED:
        listed += f", … ({len(names)} in all)"
    return UserError(f"Unknown {kind}", expected=f"one of {listed}", got=got, remedy=remedy)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the name of ``valid`` that ``name`` is a misspelling of; ``None`` if there is none."""
    folded = {known.casefold(): known for known in valid}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=_NEAR)
    return folded[near[0]] if near else None
