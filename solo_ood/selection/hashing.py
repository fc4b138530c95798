"""Hash functions, and a seed: random-looking numbers that are a function of their input."""

from __future__ import annotations

import os

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood, 2014, doi:10.1145/2714064.2660195).
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 2**64 - 1


def hash_int(*numbers: int) -> int:
    """Return a number in [0, 2^63) for a seed and numbers that distinguish its uses."""
    key = 0
    for number in numbers:
        key = (key + (number + 1) * _GAMMA) & _MASK
        key = ((key ^ (key >> 30)) * _FIRST) & _MASK
        key = ((key ^ (key >> 27)) * _SECOND) & _MASK
        key ^= key >> 31
    return key >> 1


def hash_tensor(indexes: Tensor, seed: int) -> Tensor:
    """Return 64 well mixed bits for each of ``indexes`` (any shape, int64), as int64.

    The arithmetic of integers is the same on every device, and nothing is read back from one. Two
    different indexes never have the same bits.
    """
    bits = indexes * _signed(_GAMMA) + hash_int(seed)  # wraps around, as meant
    bits = (bits ^ _shifted(bits, 30)) * _signed(_FIRST)
    bits = (bits ^ _shifted(bits, 27)) * _signed(_SECOND)
    return bits ^ _shifted(bits, 31)


def uniform(indexes: Tensor, seed: int, bits: int = 24) -> Tensor:
    """Return a float32 in [0, 1) for each of ``indexes``, a multiple of 2^-bits."""
    # float32 by name: in true half precision Lightning makes bfloat16 or float16 the default.
    return _shifted(hash_tensor(indexes, seed), 64 - bits).to(torch.float32) / 2**bits


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return the bits shifted to the right; zeros come in, where torch's ``>>`` copies the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def run_seed() -> int:
    """Return what Lightning's ``seed_everything`` was called with; 0 if it was not called.

    Both hosts call it with the run's ``seed`` before they build the model. It is in the
    environment, so it is the same on every process, unlike the state of a generator.
    """
    seed = os.environ.get("PL_GLOBAL_SEED", "")
    return int(seed) if seed.isdecimal() else 0
