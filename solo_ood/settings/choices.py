"""The tables of scorers and of thresholds: every name, what builds it and which settings it takes.

The only list of them, read by the checks, by the comments of the configuration and by the builders.
A package of your own adds an entry, before it trains::

    from solo_ood.settings.choices import SCORERS, ScorerChoice

    SCORERS["mine"] = ScorerChoice(MyScorer, ("dim", "n_reference", "min_samples"), "my own")

and ``method_kwargs.ood.scorer.name=mine`` is a scorer like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple


class ScorerChoice(NamedTuple):
    """How to build a scorer.

    Attributes:
        target: a ``Scorer``, or where it is, as ``package.module.Class``: imported
            when it is built.
        takes: its arguments, by name: settings of ``method_kwargs.ood.scorer``, and of the run
            ``dim`` (the feature size), ``num_classes`` and ``seed``.
        help: what it is, for the comment in the configuration.
        constants: arguments that are no settings.
        needs_exemplars: whether it scores towards ``scorer.exemplars``, features in eval mode.
        needs_labels: whether the training data have to be labelled.
    """

    target: str | Callable[..., Any]
    takes: tuple[str, ...]
    help: str = ""
    constants: Mapping[str, Any] = {}
    needs_exemplars: bool = False
    needs_labels: bool = False


class ThresholdChoice(NamedTuple):
    """How to build a threshold.

    Attributes:
        target: a ``Threshold``, or where it is, as ``package.module.Class``.
        takes: its arguments, by name: settings of ``method_kwargs.ood.threshold``.
        help: what it is, for the comment in the configuration.
    """

    target: str | Callable[..., Any]
    takes: tuple[str, ...]
    help: str = ""


_OFTEN = {"refresh": 10}  # batches between two factorisations, each of which costs D^3/3 operations

SCORERS: dict[str, ScorerChoice] = {
    "knn": ScorerChoice(
        "solo_ood.selection.scorers.knn.KNNScorer",
        ("dim", "n_reference", "k", "min_samples", "normalize"),
    ),
    "mahalanobis": ScorerChoice(
        "solo_ood.selection.scorers.mahalanobis.MahalanobisScorer",
        ("dim", "n_reference", "shrinkage", "min_samples", "normalize"),
        constants=_OFTEN,
    ),
    "exemplar": ScorerChoice(
        "solo_ood.selection.scorers.exemplar.ExemplarScorer",
        ("dim", "n_reference", "ridge", "min_samples", "normalize"),
        "towards given samples",
        _OFTEN,
        needs_exemplars=True,
    ),
    "random": ScorerChoice(
        "solo_ood.selection.scorers.controls.RandomScorer",
        ("dim", "min_samples", "seed"),
        "control: a number of each sample's own, so that its picks persist as a detector's do",
    ),
    "random-fresh": ScorerChoice(
        "solo_ood.selection.scorers.controls.RandomFreshScorer",
        ("dim", "min_samples", "seed"),
        "control: new noise at each look",
    ),
    "oracle": ScorerChoice(
        "solo_ood.selection.scorers.controls.OracleScorer",
        ("dim", "num_classes", "min_samples", "seed"),
        "control: needs labels",
        needs_labels=True,
    ),
}

THRESHOLDS: dict[str, ThresholdChoice] = {
    "quota": ThresholdChoice(
        "solo_ood.selection.threshold.QuotaThreshold",
        ("percentile", "n", "upper_percentile"),
        "exactly the top 1 - percentile of every n samples",
    ),
    "fixed": ThresholdChoice(
        "solo_ood.selection.threshold.FixedThreshold",
        ("percentile", "n", "upper_percentile"),
        "percentile of the first n",
    ),
}


def build(choice: ScorerChoice | ThresholdChoice, known: Mapping[str, Any]) -> Any:
    """Return what ``choice`` names, built with those of the ``known`` values that it takes."""
    target = choice.target
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        target = getattr(import_module(module), name)
    constants = getattr(choice, "constants", {})
    return target(**{name: known[name] for name in choice.takes}, **constants)
