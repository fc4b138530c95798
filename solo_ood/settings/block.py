"""What the settings of a threshold come to: its flag rate, and the samples of a block."""

from __future__ import annotations

import math
from fractions import Fraction


def flag_rate(percentile: float, upper_percentile: float | None = None) -> Fraction:
    """Return the share of the stream that a threshold flags."""
    upper = 1 if upper_percentile is None else Fraction(str(upper_percentile))
    return upper - Fraction(str(percentile))


def block_size(percentile: float, upper_percentile: float | None = None) -> int:
    """Return the samples of a block of the default size, of which 100 are flagged."""
    return math.ceil(100 / flag_rate(percentile, upper_percentile))
