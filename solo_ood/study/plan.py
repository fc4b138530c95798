"""The matrix of a study, read from YAML: arms, pairs of seed and class order, budgets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from solo_ood.errors import UserError, nearest, short_repr, unknown_name

SHIPPED = "solo_ood.configs.study"


@dataclass(frozen=True)
class DataPlan:
    """What is trained on, and what the features are judged by.

    Attributes:
        source: ``digits``, ``mnist``, or ``folder``, which the command line names.
        longtailed: whether the folder's ``train`` is long-tailed by itself; it then has a
            ``reference``, too.
        imbalance: images of the largest class / those of the smallest.
        largest: images of the largest class; 0 = as many as there are.
        reference: held-out images per class for the probes.
    """

    source: str = "folder"
    longtailed: bool = False
    imbalance: float = 100.0
    largest: int = 0
    reference: int = 100


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        overrides: of the training config.
        exemplars: images of the Few classes that the detector gets, drawn by the pair.
    """

    overrides: list[str]
    exemplars: int = 0


@dataclass(frozen=True)
class Cell:
    """One pre-training and its evaluation: an arm with one seed, class order and budget."""

    budget: str
    arm: str
    seed: int
    order: int

    @property
    def pair(self) -> tuple[int, int]:
        """The seed and the class order, which the arms of a pair share."""
        return self.seed, self.order

    @property
    def name(self) -> str:
        """Of its files."""
        parts = (_slug(self.budget), _slug(self.arm), f"seed{self.seed}", f"order{self.order}")
        return "--".join(part for part in parts if part)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        about: what it asks, in a line.
        config: name of the training config, or the path of a YAML.
        overrides: of the training config, for every arm.
        arms: by name.
        seeds: how many, from ``first_seed`` on; each draws initialisation, crops and replays.
        orders: class orders of each seed, all different; an order draws which class is rare and
            which images are taken.
        budgets: overrides by name; each arm is trained with each.
        against: the arms that the others are compared with, the first one first.
        weights: which network is evaluated.
    """

    about: str
    arms: dict[str, Arm]
    config: str = "dino_ood"
    data: DataPlan = field(default_factory=DataPlan)
    overrides: list[str] = field(default_factory=list)
    seeds: int = 5
    first_seed: int = 0
    orders: int = 1
    budgets: dict[str, list[str]] = field(default_factory=lambda: {"": []})
    against: list[str] = field(default_factory=lambda: ["random", "off"])
    weights: str = "teacher"

    @property
    def cells(self) -> list[Cell]:
        """All cells; the pairs are outermost, so that a study that is stopped has whole pairs."""
        return [
            Cell(budget, arm, seed, seed * self.orders + order)
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for order in range(self.orders)
            for budget in self.budgets
            for arm in self.arms
        ]

    def settings(self, cell: Cell) -> dict[str, Any]:
        """Return all that decides the result of a cell, to compare with what a result is of."""
        arm = self.arms[cell.arm]
        return {
            "config": self.config,
            "data": asdict(self.data),
            "overrides": [*self.overrides, *self.budgets[cell.budget], *arm.overrides],
            "exemplars": arm.exemplars,
            "weights": self.weights,
        }


def shipped() -> list[str]:
    """Return the names of the studies that come with the package."""
    entries = files(SHIPPED).iterdir()
    return sorted(entry.name[:-5] for entry in entries if entry.name.endswith(".yaml"))


def read_study(name: str) -> Study:
    """Return a study of the package, or that of a YAML file.

    Raises:
        UserError: for an unknown name, an unreadable file, unknown keys or values.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(
                "study", expected="a YAML file", got=f"no file {name}", remedy="Check its spelling."
            )
        text = path.read_text(encoding="utf-8")
    elif name in shipped():
        text = files(SHIPPED).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise unknown_name("study", name, [*shipped(), "PATH.yaml"])
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"study {name}",
            expected="YAML",
            got=" ".join(str(error).split()),
            remedy="Correct the file.",
        ) from None
    return parse_study(content, name)


def parse_study(content: Any, name: str) -> Study:
    """Return the study that a YAML's content describes.

    Raises:
        UserError: for what is none.
    """
    given = dict(_mapping(content, name))
    _check_keys(given, Study, name)
    for key in ("about", "arms"):
        if not given.get(key):
            raise UserError(
                f"study {name}, {key}", expected="a value", got="none", remedy=f"Give {key}."
            )
    data = dict(_mapping(given.get("data", {}), f"{name}, data"))
    _check_keys(data, DataPlan, f"{name}, data")
    given["data"] = DataPlan(**data)
    arms = _mapping(given["arms"], f"{name}, arms")
    given["arms"] = {
        _word(arm): _arm(value, f"{name}, arm {_word(arm)}") for arm, value in arms.items()
    }
    if isinstance(given.get("against"), list):
        given["against"] = [_word(arm) for arm in given["against"]]
    if "overrides" in given:
        given["overrides"] = _overrides(given["overrides"], f"{name}, overrides")
    if "budgets" in given:
        budgets = _mapping(given["budgets"], f"{name}, budgets")
        given["budgets"] = {
            _word(budget): _overrides(value, f"{name}, budget {budget}")
            for budget, value in budgets.items()
        }
    study = Study(**given)
    _check(study, name)
    return study


def _word(name: Any) -> str:
    """Return a name as it was written: ``off`` without quotes is a bool to YAML."""
    return {True: "on", False: "off"}[name] if isinstance(name, bool) else str(name)


def _arm(value: Any, what: str) -> Arm:
    if not isinstance(value, Mapping):
        return Arm(_overrides(value, what))
    _check_keys(value, Arm, what)
    exemplars = value.get("exemplars", 0)
    _check_count(exemplars, f"{what}, exemplars", 0)
    return Arm(_overrides(value.get("overrides", []), what), exemplars)


def _check(study: Study, name: str) -> None:
    for key, least in (("seeds", 1), ("orders", 1), ("first_seed", 0)):
        _check_count(getattr(study, key), f"study {name}, {key}", least)
    for key, least in (("reference", 1), ("largest", 0)):
        _check_count(getattr(study.data, key), f"study {name}, data.{key}", least)
    if study.data.source not in ("digits", "mnist", "folder"):
        raise unknown_name("data.source", study.data.source, ["digits", "mnist", "folder"])
    if not isinstance(study.against, list) or not study.against:
        raise UserError(
            f"study {name}, against",
            expected="a list of arms",
            got=short_repr(study.against),
            remedy="Such as [random, off].",
        )
    for arm in study.against:
        if arm not in study.arms:
            raise unknown_name("arm in against", arm, study.arms)
    names = [cell.name for cell in study.cells]
    if len(set(names)) < len(names):
        raise UserError(
            f"study {name}",
            expected="arms and budgets whose names differ in letters or digits",
            got=", ".join([*study.arms, *study.budgets]),
            remedy="Name them otherwise: their names become names of files.",
        )


def _check_count(value: Any, what: str, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(
            what,
            expected=f"a whole number of at least {least}",
            got=short_repr(value),
            remedy="Correct it.",
        )


def _check_keys(given: Mapping[str, Any], cls: type, what: str) -> None:
    known = [entry.name for entry in fields(cls)]
    for key in given:
        if key not in known:
            near = nearest(str(key), known)
            raise UserError(
                f"study {what}",
                expected=f"the keys {', '.join(known)}",
                got=key,
                remedy=f"Did you mean {near}?" if near else "Remove it.",
            )


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise UserError(
        f"study {what}",
        expected="keys with values",
        got=short_repr(value),
        remedy="See docs/study.md.",
    )


def _overrides(value: Any, what: str) -> list[str]:
    """Return overrides of Hydra: a list of ``key=value``, or a mapping from keys to values."""
    found = list(_flat(value)) if isinstance(value, Mapping) else value
    if isinstance(found, list) and all(_is_override(entry) for entry in found):
        return found
    raise UserError(
        f"study {what}",
        expected="a list of overrides, KEY=VALUE or ~KEY each",
        got=short_repr(value),
        remedy="Such as [ood=off].",
    )


def _is_override(entry: Any) -> bool:
    return isinstance(entry, str) and ("=" in entry or entry.startswith("~"))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a mapping as overrides: ``{a: {b: 1}}`` is ``++a.b=1``."""
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{key}.")
        elif entry is None or isinstance(entry, bool):
            yield f"++{prefix}{key}={'null' if entry is None else str(entry).lower()}"
        else:
            yield f"++{prefix}{key}={entry}"
