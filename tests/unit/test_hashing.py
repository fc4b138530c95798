"""Hashes that serve as random numbers: those of SplitMix64, uniform and independent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from solo_ood.selection.hashing import hash_int, hash_tensor, uniform

N = 2**16


def reference(index: int, key: int) -> int:
    """The published SplitMix64, in Python's integers."""
    z = (key + index * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_the_bits_are_those_of_splitmix64():
    indexes = [0, 1, 2, 63, 10**6, 2**40, 2**63 - 1, -1, -7]
    bits = hash_tensor(torch.tensor(indexes), seed=5).tolist()
    assert [b % 2**64 for b in bits] == [reference(i, hash_int(5)) for i in indexes]


@pytest.mark.parametrize("seed", [0, 1, 2, 2**40])
def test_numbers_of_consecutive_indexes_are_uniform_and_independent(seed):
    numbers = uniform(torch.arange(N + 3), seed).numpy()
    assert numbers.dtype == np.float32 and 0 <= numbers.min() and numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    for lag in (1, 2, 3):
        cells = np.histogram2d(numbers[:N], numbers[lag : N + lag], bins=16)[0]
        assert stats.chisquare(cells.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (7, 8), (0, 2**32)])
def test_numbers_of_two_seeds_are_independent(pair):
    one, other = (uniform(torch.arange(N), seed).numpy() for seed in pair)
    cells = np.histogram2d(one, other, bins=16)[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-3
    top = [set(np.argsort(x)[-N // 20 :]) for x in (one, other)]
    assert len(top[0] & top[1]) == pytest.approx(N / 400, rel=0.35)  # as many as by chance


def test_each_bit_of_a_seed_and_of_an_index_changes_half_of_the_bits():
    def changed(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.mean([bin(int(x) % 2**64).count("1") for x in (a ^ b).tolist()]))

    indexes = torch.arange(256)
    base = hash_tensor(indexes, 3)
    for bit in range(0, 62, 3):
        assert changed(base, hash_tensor(indexes ^ (1 << bit), 3)) == pytest.approx(32, abs=2)
        assert changed(base, hash_tensor(indexes, 3 ^ (1 << bit))) == pytest.approx(32, abs=2)


def test_hash_int_separates_uses_of_a_seed():
    keys = {
        hash_int(*numbers) for numbers in [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0)]
    }
    assert len(keys) == 7 and all(0 <= key < 2**63 for key in keys)
