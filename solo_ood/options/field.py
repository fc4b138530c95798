"""Options as dataclasses: a field says its default, its range and its help, once for everybody.

The command line is made of them (``command_line``); calls from Python are checked in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from math import inf, isfinite
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from solo_ood.errors import UserError, short_repr, unknown_name
from solo_ood.files.text import user_path

LARGEST_SEED = 2**32 - 1  # of NumPy's generators

_READERS: dict[type, Callable[[str], Any]] = {int: int, float: float, str: str, Path: user_path}
_NOUNS = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}


@dataclass(frozen=True)
class OptionInfo:
    """What is known of an option beside its type and default.

    Attributes:
        help: a phrase, or what returns it when it is asked for; the default is told by itself.
        name: on the command line; "" = the field's.
        at_least, above, at_most, below: the range of numbers.
        choices: the names that are taken; () = any.
        words: texts that stand for a value, such as ``{"all": None}``.
        metavar: how the help calls a value; "" = by its type.
        positional: whether it has no name on the command line.
    """

    help: str | Callable[[], str]
    name: str = ""
    at_least: float = -inf
    above: float = -inf
    at_most: float = inf
    below: float = inf
    choices: Sequence[str] = ()
    words: Mapping[str, Any] = field(default_factory=dict)
    metavar: str = ""
    positional: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a number is in the range."""
        inside = self.at_least <= value <= self.at_most and self.above < value < self.below
        return inside and isfinite(value)

    @property
    def range(self) -> str:
        """The range in words, with a blank before it; "" if there is none."""
        if -inf < self.at_least and self.at_most < inf:
            return f" from {_short(self.at_least)} to {_short(self.at_most)}"
        ends = {
            "of at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        words = [f"{word} {_short(end)}" for word, end in ends.items() if isfinite(end)]
        return f" {' and '.join(words)}" if words else ""


def _short(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:g}"


def option(default: Any = MISSING, help: str | Callable[[], str] = "", **about: Any) -> Any:
    """Return a field that is an option, see ``OptionInfo``; without a default it is required."""
    return field(default=default, metadata={"about": OptionInfo(help, **about)})


def group(title: str, make: Any = MISSING) -> Any:
    """Return a field that holds a dataclass of options; ``make`` returns its defaults."""
    return field(default_factory=make, metadata={"title": title})


@dataclass(frozen=True)
class Option:
    """An option in its place.

    Attributes:
        name: the field's.
        about: what its field says.
        type: of a value, ``bool`` for a switch.
        many: whether there may be several values.
        default: ``MISSING`` if it has to be given.
        group: the field of the group that holds it, "" = none.
        title: the group's.
        joint: what joins the words of its name on the command line.
    """

    name: str
    about: OptionInfo
    type: type
    many: bool
    default: Any
    group: str = ""
    title: str = ""
    joint: str = "-"

    @property
    def flag(self) -> str:
        """What the user writes: ``--base-rate``, or ``DATA`` where no name is written."""
        name = self.about.name or self.name
        if self.about.positional:
            return self.about.metavar or name.upper()
        return "--" + name.replace("_", self.joint)

    @property
    def expected(self) -> str:
        """What values there are, in words."""
        if self.about.choices:
            return f"one of {', '.join(self.about.choices)}"
        return " or ".join([_NOUNS[self.type] + self.about.range, *self.about.words])

    def read(self, text: str) -> Any:
        """Return the value that a user wrote.

        Raises:
            UserError: for a text that is no value of this option.
        """
        if text in self.about.words:
            return self.about.words[text]
        try:
            value = _READERS[self.type](text)
        except ValueError:
            raise self.value_error(text) from None
        return self.checked(value, text)

    def checked(self, value: Any, text: str | None = None) -> Any:
        """Return one value, if it may be.

        Raises:
            UserError: for a value of another type, out of the range, or not among the choices.
        """
        if any(value is word or value == word for word in self.about.words.values()):
            return value
        if self.about.choices and value not in self.about.choices:
            raise unknown_name(self.flag, value, self.about.choices)
        if self.type in (int, float):
            known = (int,) if self.type is int else (int, float)
            right = isinstance(value, known) and not isinstance(value, bool)
            if not (right and self.about.holds(value)):
                raise self.value_error(short_repr(value) if text is None else text)
        return value

    def value_error(self, got: Any) -> UserError:
        """Return the error for what is no value of this option."""
        remedy = f"Leave {self.flag} out for the default, {self.shown_default}."
        if not self.shown_default:
            remedy = f"Write {self.flag} as its help says, or leave it out."
        return UserError(self.flag, expected=self.expected, got=got, remedy=remedy)

    @property
    def shown_default(self) -> str:
        """The default as a user would write it; "" if there is nothing to tell."""
        if self.default in (MISSING, None, ()) or isinstance(self.default, bool):
            return ""
        texts = {value: word for word, value in self.about.words.items()}
        values = self.default if self.many else (self.default,)
        return " ".join(str(texts.get(value, value)) for value in values)


def options_in(
    cls: type, default: Any = None, group: str = "", title: str = ""
) -> Iterator[Option]:
    """Yield the options of a dataclass and of its groups, in order.

    Args:
        cls: the dataclass; fields that are neither options nor groups are left out.
        default: an instance whose values are the defaults; ``None`` = those of the fields.
        group: the field that holds it.
        title: of the group.
    """
    hints = get_type_hints(cls)
    for entry in fields(cls):
        if "title" in entry.metadata:
            made = None if entry.default_factory is MISSING else entry.default_factory()
            yield from options_in(hints[entry.name], made, entry.name, entry.metadata["title"])
        elif "about" in entry.metadata:
            kind, many = _kind(hints[entry.name])
            value = entry.default if default is None else getattr(default, entry.name)
            yield Option(entry.name, entry.metadata["about"], kind, many, value, group, title)


def check(options: Any) -> None:
    """Raise ``UserError`` for a value out of its range, in any group of ``options``."""
    for entry in options_in(type(options)):
        holder = getattr(options, entry.group) if entry.group else options
        value = getattr(holder, entry.name)
        if value is None and entry.default is None:
            continue
        for each in value if entry.many else (value,):
            entry.checked(each)


def build_options(cls: type, given: Mapping[tuple[str, str], Any]) -> Any:
    """Return the dataclass with the values that were given, by group and name.

    All options without a default have to be among them.
    """
    values = {}
    hints = get_type_hints(cls)
    for entry in fields(cls):
        if "title" in entry.metadata:
            own = {name: value for (group, name), value in given.items() if group == entry.name}
            made = {} if entry.default_factory is MISSING else _values(entry.default_factory())
            values[entry.name] = hints[entry.name](**{**made, **own})
        elif ("", entry.name) in given:
            values[entry.name] = given["", entry.name]
    return cls(**values)


def _values(holder: Any) -> dict[str, Any]:
    return {entry.name: getattr(holder, entry.name) for entry in fields(holder)}


def _kind(hint: Any) -> tuple[type, bool]:
    """Return the type of one value, and whether there are several: ``int | None`` is an int."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) in (tuple, list, Sequence):
        return _kind(get_args(hint)[0])[0], True
    assert hint is bool or hint in _READERS, hint
    return hint, False
