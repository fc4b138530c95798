"""The state of the global random number generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """Return the state of torch's, Python's and numpy's, as ``torch.load`` reads it safely."""
    version, internal, gauss = random.getstate()
    legacy: Any = np.random.get_state()
    name, keys, *rest = legacy
    return {
        "torch": torch.get_rng_state(),
        "random": [version, list(internal), gauss],
        "numpy": [name, keys.tolist(), *rest],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what ``rng_state`` returned."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["random"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
