"""Compare the settings that a detector was saved with to those that it is resumed with."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

from solo_ood.errors import UserError, message
from solo_ood.settings.schema import OODConfig

# Settings that define what the state of a scorer or threshold means.
_DEFINES_STATE = {
    "feature size",
    "scorer.name",
    "scorer.n_reference",
    "scorer.normalize",
    "scorer.feats",
    "threshold.name",
    "threshold.percentile",
    "threshold.upper_percentile",
    "threshold.n",
    "queue.store",
    "seed",
}
# Settings that the state does not depend on.
_UNRELATED_TO_STATE = {"rare_classes", "mix.num_workers"}


def settings_of(cfg: OODConfig, dim: int, n: int, seed: int) -> dict[str, Any]:
    """Return the settings by dotted key, with what ``null`` stands for where it is known.

    Args:
        cfg: the checked configuration.
        dim: D, the feature size.
        n: samples of a block of the threshold.
        seed: of the detector.
    """
    blocks = asdict(cfg)
    blocks["threshold"]["n"], blocks["seed"] = n, seed
    flat: dict[str, Any] = {"feature size": dim}
    for key, value in blocks.items():
        parts = value if isinstance(value, dict) else None
        flat.update({key: value} if parts is None else {f"{key}.{k}": v for k, v in parts.items()})
    return {key: value for key, value in flat.items() if key not in _UNRELATED_TO_STATE}


def check_resumed_settings(
    saved: dict[str, Any], current: dict[str, Any], key: str, seed_is_given: bool
) -> None:
    """Warn of settings that differ from the saved ones; raise where the state would be wrong.

    Args:
        saved: the settings in the checkpoint, from ``settings_of``.
        current: those of this run.
        key: of the state in a checkpoint, for the remedy.
        seed_is_given: otherwise the saved seed is kept.

    Raises:
        UserError: see above.
    """
    changed = [
        k
        for k in current
        if k in saved and saved[k] != current[k] and (k != "seed" or seed_is_given)
    ]
    breaking = [k for k in changed if k in _DEFINES_STATE]
    named = breaking or changed
    expected = ", ".join(f"{k}={saved[k]!r}" for k in named)
    got = ", ".join(f"{k}={current[k]!r}" for k in named)
    if breaking:
        raise UserError(
            "checkpoint, state of the detector",
            expected=f"the settings it was made with, {expected}",
            got=got,
            remedy="Resume with the configuration of that run, or delete the key "
            f"{key!r} from the checkpoint to start its detector afresh.",
        )
    if changed:
        warnings.warn(
            message(
                "method_kwargs.ood",
                expected=f"the settings of the checkpoint, {expected}",
                got=got,
                remedy="The new ones hold from now on; what was queued, counted and drawn so far "
                "stays.",
            ),
            RuntimeWarning,
            stacklevel=3,
        )
