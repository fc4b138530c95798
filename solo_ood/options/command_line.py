"""The command line of a dataclass of options, by argparse.

Not by ``tyro``: of ``--rare a --rare b`` it keeps the last, it knows no ranges, and its errors are
boxes of ten lines where this project's are one.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentError, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import MISSING, replace
from typing import Any, NoReturn, TypeVar

from solo_ood.errors import UserError, nearest
from solo_ood.options.field import Option, build_options, options_in

Options = TypeVar("Options")
_METAVARS = {int: "N", float: "X"}


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(
            self.prog,
            expected="options of its help",
            got=message,
            remedy=f"See {self.prog} --help.",
        )


def parse(
    cls: type[Options],
    argv: Sequence[str],
    prog: str,
    about: str = "",
    epilog: str = "",
    joint: str = "-",
) -> Options:
    """Return the options that a user wrote.

    Options of several values may be given several times: all of their values count, and replace
    the default.

    Args:
        cls: the dataclass, see ``option`` and ``group``.
        argv: the words after the program's name.
        prog: the program's name.
        about: what it does, for its help.
        epilog: the end of its help, shown as it is.
        joint: what joins the words of an option's name.

    Raises:
        UserError: for an unknown option, a missing one, or a value that is none.
        SystemExit: after ``--help``.
    """
    options = [replace(option, joint=joint) for option in options_in(cls)]
    known = {option.flag: option for option in options}
    parser = _parser(options, prog, about, epilog)
    try:
        given, others = parser.parse_known_args(list(argv))
    except ArgumentError as error:
        raise _misuse_error(error, known, prog) from None
    if others:
        raise _unknown(others, known, prog)
    values = {}
    for flag, option in known.items():
        text = getattr(given, flag, None)
        if text is not None:
            values[option.group, option.name] = _read(option, text)
        elif option.default is MISSING:
            raise UserError(
                flag, expected=_help(option), got="nothing", remedy=f"Give it, see {prog} --help."
            )
    return build_options(cls, values)


def _read(option: Option, text: Any) -> Any:
    if option.type is bool:
        return text
    return tuple(map(option.read, text)) if option.many else option.read(text)


def _parser(known: Sequence[Option], prog: str, about: str, epilog: str) -> ArgumentParser:
    required = [option for option in known if option.default is MISSING]
    usage = [
        option.flag if option.about.positional else f"{option.flag} {_metavar(option)}"
        for option in required
    ]
    parser = _Parser(
        prog=prog,
        usage=" ".join([prog, *usage, "[OPTIONS]"]),
        description=about,
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    groups: dict[str, Any] = {"": parser}
    for option in known:
        title = "" if option.about.positional else option.title
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], option)
    return parser


def _add(to: Any, option: Option) -> None:
    # Kept under what the user writes, which no two options share.
    how: dict[str, Any] = {"help": _help(option).replace("%", "%%"), "default": SUPPRESS}
    if option.type is bool:
        to.add_argument(option.flag, dest=option.flag, action="store_true", **how)
        return
    if option.many:
        how |= {"nargs": "+", "action": "extend"}
    if option.about.positional:
        # Asked for below, with a word on what is missing.
        to.add_argument(option.flag, **how).required = False
    else:
        to.add_argument(option.flag, dest=option.flag, metavar=_metavar(option), **how)


def _metavar(option: Option) -> str:
    choices = option.about.choices
    if option.about.metavar or not choices:
        name = option.about.name or option.name
        return option.about.metavar or _METAVARS.get(option.type, name.rpartition("_")[2].upper())
    return "{" + ",".join(choices) + "}"


def _help(option: Option) -> str:
    text = option.about.help if isinstance(option.about.help, str) else option.about.help()
    return f"{text} (default: {option.shown_default})" if option.shown_default else text


def _misuse_error(error: ArgumentError, known: dict[str, Option], prog: str) -> UserError:
    """Return the error for a known option that lacks a value, has one too many, or is cut short."""
    option = known.get(error.argument_name or "")
    if option is not None and option.type is not bool:
        return option.value_error("nothing")
    expected = "no value" if option is not None else "one option"
    return UserError(
        error.argument_name or prog, expected=expected, got=error.message,
        remedy=f"See {prog} --help.",
    )  # fmt: skip


def _unknown(others: Sequence[str], known: dict[str, Option], prog: str) -> UserError:
    """Return the error for words that belong to no option."""
    flags = [word.partition("=")[0] for word in others if word.startswith("-")]
    if not flags:
        return UserError(
            prog,
            expected="no more words",
            got=" ".join(others),
            remedy="Put a name with blanks into quotes; options of one value take one.",
        )
    near = nearest(flags[0].lstrip("-"), [flag[2:] for flag in known if flag.startswith("--")])
    return UserError(
        "Unknown option",
        expected=f"one of {prog} --help",
        got=flags[0],
        remedy=f"Did you mean --{near}?" if near else "Check its spelling.",
    )
