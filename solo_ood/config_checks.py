"""What ``config.parse`` checks in a user's block, so that every mistake is one clear line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_ood.errors import UserError, shown, unknown_name

# Limits far above what is of use: a typo must end in an error here, not in swap or a fork bomb.
MOST_KEPT = 2**20  # rows, scores, indexes
MOST_WORKERS = 256
MOST_EXEMPLARS = 1000
LARGEST_RIDGE = 1e6  # the scores are those of an infinite one; float32 still holds it
_END = 2**63  # of what fits into an int64 tensor

_KINDS = (  # by what stands in the annotation, the longer ones first
    ("list[int]", "a list of whole numbers"),
    ("list", "a list"),
    ("bool", "true or false"),
    ("int", "a whole number"),
    ("float", "a number"),
    ("str", "a name"),
)


def plain(user: Any, schema: Any, path: str) -> dict[Any, Any]:
    """Return a user's block as a dict of dicts, OmegaConf's interpolations resolved.

    Raises:
        UserError: if it or one of its sections is no mapping, or an interpolation leads nowhere.
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
            got=shown(block),
            remedy=f"Write `{key}:` with its keys below it, or `{key}: {{}}` for the defaults.",
        )
    sections = {f.name: f.default_factory for f in fields(schema) if _is_section(f)}
    return {
        key: plain(value, sections[key], f"{path}.{key}") if key in sections else value
        for key, value in block.items()
    }


def check_keys(block: Mapping[Any, Any], schema: Any, path: str) -> None:
    """Raise for a key that the schema does not have or that has no value, anywhere in ``block``.

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


def misfit(block: Mapping[str, Any], schema: Any, path: str, error: Exception) -> UserError:
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
                expected=_kind(str(f.type)),
                got=shown(value),
                remedy="Give one, or remove the key for its default.",
            )
    return None


def _kind(annotation: str) -> str:
    """Return what an annotation stands for, in words."""
    text = annotation.lower()
    kind = next(kind for word, kind in _KINDS if word in text)
    return f"{kind} or null" if "none" in text or "optional" in text else kind


def _is_section(f: Any) -> bool:
    return is_dataclass(f.default_factory)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_values(cfg: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Raise for a name that is not among the ``choices`` of its key, or a number out of its range.

    Args:
        cfg: an ``OODConfig`` whose values have the right types.
        choices: valid names by dotted key.

    Raises:
        UserError: see above.
    """
    for key, valid in choices.items():
        section, _, name = key.partition(".")
        choice = getattr(getattr(cfg, section), name)
        if choice not in valid:
            raise unknown_name(f"ood.{key}", choice, valid)
    scorer, threshold, queue, mix = cfg.scorer, cfg.threshold, cfg.queue, cfg.mix
    n_reference, classes = scorer.n_reference, cfg.rare_classes
    ranges: dict[str, tuple[Any, bool, str]] = {
        "start": (cfg.start, 0 <= cfg.start < 1, "a share in [0, 1)"),
        "seed": (
            cfg.seed,
            cfg.seed is None or 0 <= cfg.seed < _END,
            "null or a whole number in [0, 2^63)",
        ),
        "rare_classes": (
            classes,
            # OmegaConf lets lists pass as elements
            classes is None or all(isinstance(c, int) and 0 <= c < _END for c in classes),
            "null or class ids of at least 0",
        ),
        "scorer.n_reference": (
            n_reference,
            2 <= n_reference <= MOST_KEPT,
            f"at least 2 samples and at most {MOST_KEPT}",
        ),
        "scorer.min_samples": (
            scorer.min_samples,
            2 <= scorer.min_samples <= n_reference,
            f"2 to scorer.n_reference = {shown(n_reference)} samples",
        ),
        "scorer.k": (
            scorer.k,
            scorer.k is None or 1 <= scorer.k <= scorer.min_samples,
            f"null or 1 to scorer.min_samples = {shown(scorer.min_samples)}",
        ),
        "scorer.shrinkage": (scorer.shrinkage, 0 <= scorer.shrinkage <= 1, "a weight in [0, 1]"),
        "scorer.ridge": (
            scorer.ridge,
            0 < scorer.ridge <= LARGEST_RIDGE,
            f"a number above 0 and at most {LARGEST_RIDGE:g}",
        ),
        "scorer.exemplar_every": (
            scorer.exemplar_every,
            scorer.exemplar_every >= 1,
            "at least 1 step",
        ),
        "threshold.percentile": (
            threshold.percentile,
            0 < threshold.percentile < 1,
            "a fraction in (0, 1), such as 0.95",
        ),
        "threshold.n": (
            threshold.n,
            threshold.n is None or 2 <= threshold.n <= MOST_KEPT,
            f"null, or at least 2 samples and at most {MOST_KEPT}",
        ),
        "queue.capacity": (
            queue.capacity,
            1 <= queue.capacity <= MOST_KEPT,
            f"at least 1 index and at most {MOST_KEPT}",
        ),
        "queue.max_replays": (
            queue.max_replays,
            queue.max_replays is None or queue.max_replays >= 1,
            "null or at least 1",
        ),
        "queue.min_age": (queue.min_age, queue.min_age >= 0, "0 or more steps"),
        "queue.release": (
            queue.release,
            queue.release is None or 0 <= queue.release < 1,
            "null or in [0, 1)",
        ),
        "mix.ratio": (mix.ratio, 0 <= mix.ratio < 1, "a ratio in [0, 1)"),
        "mix.num_workers": (
            mix.num_workers,
            mix.num_workers is None or 0 <= mix.num_workers <= MOST_WORKERS,
            f"null or 0 to {MOST_WORKERS}",
        ),
    }
    for key, (value, is_valid, expected) in ranges.items():
        if not is_valid:
            raise UserError(
                f"ood.{key}",
                expected=expected,
                got=shown(value),
                remedy=f"Set method_kwargs.ood.{key} to one, or leave it out for its default.",
            )
    _check_block(threshold)
    _check_exemplars(scorer)


def _check_block(cfg: Any) -> None:
    rate = 1 - Fraction(str(cfg.percentile))
    if cfg.n is None and 100 / rate > MOST_KEPT:
        raise UserError(
            "ood.threshold.percentile",
            expected=f"a block of 100 / (1 - percentile) of at most {MOST_KEPT} samples",
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


def _check_exemplars(cfg: Any) -> None:
    given, wanted = cfg.exemplars, cfg.name == "exemplar"
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
            "eval with ood.scorer.name=exemplar, since BatchNorm needs a larger batch",
            cfg.feats,
            "Set method_kwargs.ood.scorer.feats=eval.",
        ),
    ):
        if not valid:
            got = got if isinstance(got, str) else shown(got)
            raise UserError(f"ood.scorer.{key}", expected=expected, got=got, remedy=remedy)
