"""Quantile thresholds on a stream of scores: fixed, windowed and tracking."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from solo_ood.config import THRESHOLDS, ThresholdConfig
from solo_ood.errors import unknown_name
from solo_ood.ring import Ring

_UNIT = 2**32  # of the excess of flags: integers add up exactly, float32 loses small steps


class WindowThreshold(nn.Module):
    r"""The ``percentile`` of the newest ``n`` scores; ``is_ood == (score > threshold)``.

    Ties are not OOD. The scores must be streamed or held out (scored before they were learnt): a
    quantile of the scores of a scorer's own training samples says nothing about new ones.

    Args:
        percentile: p in (0, 1); about 1 - p of the stream is flagged.
        n: scores remembered.
        min_samples: scores seen before ``ready``.
    """

    level: Tensor  # () float32, the quantile's level; only the tracking threshold moves it

    def __init__(self, percentile: float = 0.95, n: int = 1024, min_samples: int = 256) -> None:
        super().__init__()
        self.percentile = percentile
        self.min_samples = min_samples
        self.scores = Ring(n)
        self.register_buffer("level", torch.tensor(percentile, dtype=torch.float32))
        self.n_fed = 0  # a plain int, so that nobody has to ask the device

    @property
    def ready(self) -> bool:
        """Whether enough scores were seen; before that the threshold is NaN and flags nothing."""
        return self.n_fed >= self.min_samples

    @property
    def threshold(self) -> Tensor:
        """() float32 in the scores' unit; NaN before ``ready``, +-inf for levels out of [0, 1)."""
        if not self.ready:
            return torch.full_like(self.level, float("nan"))
        return self.quantile(self.level)

    def quantile(self, level: float | Tensor) -> Tensor:
        """The smallest remembered score that more than a share ``level`` of them do not exceed."""
        scores, n = self.scores.rows, self.scores.filled.sum()
        ordered = scores.nan_to_num(nan=float("inf")).sort().values
        # Not left to torch's default, which is half precision in a step of Lightning's bf16-true.
        rank = (n.float() * level).floor().long()
        value = ordered.gather(0, rank.clamp(0, len(scores) - 1).reshape(1)).squeeze(0)
        value = torch.where(rank >= n, torch.full_like(value, float("inf")), value)
        return torch.where(rank < 0, torch.full_like(value, float("-inf")), value)

    def is_ood(self, scores: Tensor) -> Tensor:
        """(N,) bool, ``scores > threshold``; NaN scores are never OOD."""
        return scores > self.threshold

    def update(self, scores: Tensor) -> None:
        """Learn ``scores`` (N,), after they were judged; NaN and Inf are left out."""
        self.scores.push(scores)
        self.n_fed += len(scores)

    def get_extra_state(self) -> dict[str, Any]:
        return {"n_fed": self.n_fed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.n_fed = state["n_fed"]


class FixedThreshold(WindowThreshold):
    """The ``percentile`` of the first ``n`` scores, never moved again (the poster's)."""

    def __init__(self, percentile: float = 0.95, n: int = 1024) -> None:
        super().__init__(percentile, n, min_samples=n)

    def update(self, scores: Tensor) -> None:
        super().update(scores[: max(0, len(self.scores.rows) - self.n_fed)])


class TrackingThreshold(WindowThreshold):
    r"""A window quantile whose level follows the flag rate, whatever the drift.

    .. math:: \tau \leftarrow \tau + \eta \sum_i (1[r(s_i) > \tau] - (1 - p))

    where r(s) in [0, 1] is the share of the window below s, so that ``r(s) > level`` is the same as
    ``s > quantile(level)``. Summing the updates shows that after T samples the flag rate differs
    from 1 - p by exactly :math:`|\tau_T - \tau_0| / (\eta T)` (the argument of adaptive conformal
    inference, Gibbs & Candes, 2021, arXiv:2106.00170); since r is bounded, so is this.

    Args:
        percentile: p in (0, 1).
        n: scores remembered for the ranks.
        min_samples: scores seen before ``ready``.
        eta: step per sample.
    """

    n_judged: Tensor  # () int64, T
    excess: Tensor  # () int64, flags more than (1 - p) T, times _UNIT

    def __init__(
        self,
        percentile: float = 0.95,
        n: int = 1024,
        min_samples: int = 256,
        eta: float = 0.005,
    ) -> None:
        super().__init__(percentile, n, min_samples)
        self.eta = eta
        self.register_buffer("n_judged", torch.zeros((), dtype=torch.int64))
        self.register_buffer("excess", torch.zeros((), dtype=torch.int64))

    def update(self, scores: Tensor) -> None:
        if self.ready:
            finite = scores.isfinite()
            flagged = (self.is_ood(scores) & finite).sum()
            self.excess += flagged * _UNIT - finite.sum() * round((1 - self.percentile) * _UNIT)
            self.level.copy_(self.percentile + self.eta * (self.excess.float() / _UNIT))
            self.n_judged += finite.sum()
        super().update(scores)

    @property
    def rate_bound(self) -> Tensor:
        """() float32, the exact |flag rate - (1 - p)| of all samples judged; NaN before any."""
        return (self.excess.float() / _UNIT).abs() / self.n_judged

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        level = state.get(f"{prefix}level")
        if level is not None and f"{prefix}excess" not in state:  # of the first versions
            excess = (float(level) - self.percentile) / self.eta * _UNIT
            state[f"{prefix}excess"] = torch.tensor(round(excess))
        super()._load_from_state_dict(state, prefix, *args)


def make_threshold(cfg: ThresholdConfig) -> WindowThreshold:
    """Build the threshold that ``cfg.name`` names.

    Raises:
        UserError: for an unknown name.
    """
    if cfg.name == "fixed":
        return FixedThreshold(cfg.percentile, cfg.n)
    if cfg.name == "window":
        return WindowThreshold(cfg.percentile, cfg.n, cfg.min_samples)
    if cfg.name == "tracking":
        return TrackingThreshold(cfg.percentile, cfg.n, cfg.min_samples, cfg.eta)
    raise unknown_name("threshold", cfg.name, THRESHOLDS)
