"""What ``schema.parse`` checks in a user's block, so that every mistake is one clear line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_ood.errors import UserError, short_repr, unknown_name
from solo_ood.settings.block import flag_rate
from solo_ood.settings.choices import SCORERS
from solo_ood.settings.field import bound_of, choices_of, is_in_range, range_of

MOST_EXEMPLARS = 1000

_KINDS = (  # by what stands in the annotation, the longer ones first
    ("list[int]", "a list of whole numbers"),
    ("list", "a list"),
    ("bool", "true or false"),
    ("int", "a whole number"),
    ("float", "a number"),
    ("str", "a name"),
)


def as_plain_dict(user: Any, schema: Any, path: str) -> dict[Any, Any]:
    """Return a user's block as a dict of dicts, OmegaConf's interpolations resolved.

    Raises:
        UserError: if it or one of its sections is not a mapping, or an interpolation has no target.
    """
    try:
        block = OmegaConf.to_container(user, resolve=True) if OmegaConf.is_config(user) else user
    except OmegaConfBaseException as error:
        raise UserError(
            f"{path}, key {error.full_key}",
            expected="an interpolation that leads to a value",
            got=_first_line(error),
            remedy="Name a key that exists, or give the value itself.",
        ) from error
    if not isinstance(block, Mapping):
        key = path.rpartition(".")[2]
        raise UserError(
            path,
            expected="a mapping",
            got=short_repr(block),
            remedy=f"Write `{key}:` with its keys below it, or `{key}: {{}}` for the defaults.",
        )
    sections = {f.name: f.default_factory for f in fields(schema) if _is_section(f)}
    return {
        key: as_plain_dict(value, sections[key], f"{path}.{key}") if key in sections else value
        for key, value in block.items()
    }


def check_keys(block: Mapping[Any, Any], schema: Any, path: str) -> None:
    """Raise for an unknown key, or one without a value, anywhere in ``block``.

    Raises:
        UserError: see above; with the nearest valid key.
    """
    known = {f.name: f for f in fields(schema)}
    for key, value in block.items():
        if key not in known:
            raise unknown_name(f"key in {path}", key, known)
        if _is_section(known[key]):
            check_keys(value, known[key].default_factory, f"{path}.{key}")
        elif isinstance(value, str) and value == "???":  # OmegaConf would take the default
            raise UserError(
                f"{path}.{key}",
                expected="a value",
                got="???, which stands for a missing one",
                remedy="Give one, or remove the key for its default.",
            )


def conversion_error(
    block: Mapping[str, Any], schema: Any, path: str, error: Exception
) -> UserError:
    """Return the error for the value that OmegaConf could not take, which it may not name."""
    return _misfit(block, schema, path) or UserError(
        path,
        expected="values that OmegaConf can merge into the defaults",
        got=_first_line(error),
        remedy="Write plain numbers, names and lists.",
    )


def _misfit(block: Mapping[str, Any], schema: Any, path: str) -> UserError | None:
    for f in fields(schema):
        if f.name not in block:
            continue
        value, place = block[f.name], f"{path}.{f.name}"
        if _is_section(f):
            found = _misfit(value, f.default_factory, place)
            if found:
                return found
            continue
        try:
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), {f.name: value}))
        except Exception:  # as in the merge of the whole block
            return UserError(
                place,
                expected=_type_in_words(str(f.type)),
                got=short_repr(value),
                remedy="Give one, or remove the key for its default.",
            )
    return None


def _type_in_words(annotation: str) -> str:
    """Return what an annotation stands for, in words."""
    text = annotation.lower()
    kind = next(kind for word, kind in _KINDS if word in text)
    return f"{kind} or null" if "none" in text or "optional" in text else kind


def _is_section(f: Any) -> bool:
    return is_dataclass(f.default_factory)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_values(cfg: Any) -> None:
    """Raise for a name that is not among the choices of its field, or a value out of its range.

    Args:
        cfg: an ``OODConfig`` whose values have the right types.

    Raises:
        UserError: see above.
    """
    for key, f, section in _settings(cfg):
        choices, value = choices_of(f), getattr(section, f.name)
        if choices is not None and value not in choices:
            raise unknown_name(f"ood.{key}", value, choices)
    for key, f, section in _settings(cfg):
        if not is_in_range(f, section):
            kind = _type_in_words(str(f.type))
            expected = f"{kind}, {range_of(f, section, key.rpartition(f.name)[0])}"
            raise UserError(
                f"ood.{key}",
                expected=expected,
                got=short_repr(getattr(section, f.name)),
                remedy=f"Set method_kwargs.ood.{key} to one, or leave it out for its default, "
                f"{'null' if f.default is None else f.default}.",
            )
    _check_block(cfg.threshold)
    _check_exemplars(cfg.scorer)


def _settings(section: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted key, the field and the section of every setting, in their order."""
    for f in fields(section):
        if _is_section(f):
            yield from _settings(getattr(section, f.name), f"{path}{f.name}.")
        else:
            yield f"{path}{f.name}", f, section


def _check_block(cfg: Any) -> None:
    band = cfg.upper_percentile is not None
    rate = flag_rate(cfg.percentile, cfg.upper_percentile)
    most = bound_of(type(cfg), "n", "le")
    share = "upper_percentile - percentile" if band else "1 - percentile"
    if cfg.n is None and 100 / rate > most:
        raise UserError(
            "ood.threshold.percentile",
            expected=f"a block of 100 / ({share}) of at most {most} samples",
            got=f"{cfg.percentile} ({float(100 / rate):.3g} samples)",
            remedy="Lower it, or set method_kwargs.ood.threshold.n.",
        )
    if cfg.n is not None and rate * cfg.n < 1:
        raise UserError(
            "ood.threshold.n",
            expected=f"at least {math.ceil(1 / rate)} samples, of which percentile="
            f"{cfg.percentile} flags one",
            got=cfg.n,
            remedy="Raise it (100 flags a block are a good number, and what null gives), or lower "
            "ood.threshold.percentile.",
        )
    n = math.ceil(100 / rate) if cfg.n is None else cfg.n
    if band and flag_rate(cfg.upper_percentile) * n < 1:
        raise UserError(
            "ood.threshold.upper_percentile",
            expected=f"an end above which a block of {n} samples has at least 1",
            got=cfg.upper_percentile,
            remedy="Lower it, raise ood.threshold.n, or leave it out.",
        )


def _check_exemplars(cfg: Any) -> None:
    given, wanted = cfg.exemplars, SCORERS[cfg.name].needs_exemplars
    ways = 'such as "method_kwargs.ood.scorer.exemplars=[12,57,101]"'
    known = all(isinstance(x, (int, str)) and not isinstance(x, bool) for x in given or [])
    for key, valid, expected, got, remedy in (
        (
            "exemplars",
            wanted or given is None,
            f"null with ood.scorer.name={cfg.name}",
            given,
            "Remove them, or set method_kwargs.ood.scorer.name=exemplar.",
        ),
        (
            "exemplars",
            given or not wanted,
            "at least 1 sample that shows what matters",
            given,
            f"Give 5 to 20 dataset indexes or image paths, {ways}.",
        ),
        (
            "exemplars",
            len(given or []) <= MOST_EXEMPLARS,
            f"at most {MOST_EXEMPLARS} samples, which are all embedded at once",
            f"{len(given or [])}",
            f"Give 5 to 20 dataset indexes or image paths, {ways}.",
        ),
        (
            "exemplars",
            known,
            "dataset indexes (int) and image paths (str)",
            given,
            f"Give each as one of the two, {ways}.",
        ),
        (
            "feats",
            cfg.feats == "eval" or not wanted,
            f"eval with ood.scorer.name={cfg.name}, since BatchNorm needs a larger batch",
            cfg.feats,
            "Set method_kwargs.ood.scorer.feats=eval.",
        ),
    ):
        if not valid:
            got = got if isinstance(got, str) else short_repr(got)
            raise UserError(f"ood.scorer.{key}", expected=expected, got=got, remedy=remedy)
