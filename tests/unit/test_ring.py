"""The ring equals a list that keeps the newest finite rows."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from solo_ood.selection.ring import Ring

NAN, INF = float("nan"), float("inf")
value = st.one_of(st.floats(-100, 100, width=32), st.sampled_from([NAN, INF, -INF]))


def held(ring: Ring) -> Tensor:
    """The rows held, oldest first."""
    n = int(ring.n_seen)
    slots = torch.arange(max(0, n - len(ring.rows)), n) % len(ring.rows)
    return ring.rows[slots]


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 7), chunks=st.lists(st.lists(value, max_size=20), max_size=6))
def test_it_keeps_the_newest_finite_values_for_any_chunking(size, chunks):
    ring, finite = Ring(size), []
    for chunk in chunks:
        rows = torch.tensor(chunk, dtype=torch.float32)
        ring.push(rows)
        finite += rows[rows.isfinite()].tolist()
    assert held(ring).tolist() == finite[-size:]
    assert ring.n_seen == len(finite)


def test_rows_leave_oldest_first():
    ring = Ring(3, 2)
    ring.push(torch.arange(10.0).reshape(5, 2))
    assert held(ring).tolist() == [[4, 5], [6, 7], [8, 9]]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_row_with_one_value_that_is_not_finite_is_left_out_whole(bad):
    ring = Ring(3, 2)
    ring.push(torch.tensor([[1.0, 2.0], [3.0, bad], [5.0, 6.0]]))
    assert held(ring).tolist() == [[1, 2], [5, 6]]


def test_slots_never_written_hold_nan_and_are_not_filled():
    ring = Ring(4)
    ring.push(torch.tensor([1.0, 2.0]))
    assert ring.filled.tolist() == [True, True, False, False]
    assert ring.rows[2:].isnan().all()


def test_all_slots_are_filled_after_wrap_around():
    ring = Ring(4)
    ring.push(torch.arange(6.0))
    assert ring.filled.all()


def test_pushing_does_not_alter_or_alias_the_input():
    ring, rows = Ring(4, 2), torch.tensor([[1.0, NAN], [2.0, 2.0]])
    before = rows.clone()
    ring.push(rows)
    torch.testing.assert_close(rows, before, equal_nan=True)
    rows.fill_(9)
    assert held(ring).tolist() == [[2, 2]]


def test_half_precision_rows_with_a_gradient_are_kept_as_plain_float32():
    ring = Ring(2)
    ring.push(torch.tensor([0.5, 1.5], dtype=torch.float16, requires_grad=True))
    assert ring.rows.dtype == torch.float32 and not ring.rows.requires_grad


def test_the_state_survives_a_parent_module_and_safe_loading_after_wrap_around():
    source, target = (nn.ModuleDict({"ring": Ring(3, 2)}) for _ in range(2))
    source["ring"].push(torch.arange(14.0).reshape(7, 2))
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    for ring in (source["ring"], target["ring"]):
        ring.push(torch.tensor([[20.0, 21.0]]))
    assert held(target["ring"]).tolist() == held(source["ring"]).tolist()
    assert held(target["ring"]).tolist() == [[10, 11], [12, 13], [20, 21]]
