"""The ratio of replayed rows over a run: constant, or linear between its two ends."""

from __future__ import annotations

from typing import Any

from solo_ood.errors import UserError


def highest_ratio(mix: Any) -> float:
    """Return the larger end of ``mix``, a ``MixConfig``."""
    return mix.ratio if mix.ratio_end is None else max(mix.ratio, mix.ratio_end)


def ratio_at(mix: Any, progress: float) -> float:
    """Return the ratio of ``mix`` at a share of the way from the first replay's step to the end.

    Args:
        mix: a ``MixConfig``.
        progress: in [0, 1]; what is outside counts as the nearest end.
    """
    if mix.ratio_end is None:
        return mix.ratio
    share = min(max(progress, 0.0), 1.0)
    return (1 - share) * mix.ratio + share * mix.ratio_end


def check_steps_are_known(mix: Any, total: float) -> None:
    """Raise for a ratio that goes to another one in a run of unknown length.

    Args:
        mix: a ``MixConfig``.
        total: optimizer steps of the whole run; infinite, NaN or negative if unknown.

    Raises:
        UserError: see above.
    """
    if mix.ratio_end is not None and not 0 <= total < float("inf"):
        raise UserError(
            "ood.mix.ratio_end",
            expected="null for a run whose number of steps is not known before",
            got=mix.ratio_end,
            remedy="Set max_steps, or leave it out.",
        )
