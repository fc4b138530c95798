"""The state of the global random number generators, and the seed of the run."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch


def run_seed() -> int:
    """Return what Lightning's ``seed_everything`` was called with; 0 if it was not called.

    Both hosts call it with the run's ``seed`` before they build the model. It is in the
    environment, so it is the same on every process, unlike the state of a generator.
    """
    seed = os.environ.get("PL_GLOBAL_SEED", "")
    return int(seed) if seed.isdecimal() else 0


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
    """Go on from what ``rng_state`` returned."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["random"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
