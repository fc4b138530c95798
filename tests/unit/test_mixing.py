"""Mixing keeps the batch contract: rows, order, dtype, memory format, inputs."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solo_ood.replay.mixing import drawn_order, mix

MODES = ("replace", "append")
SIDES = (6, 6, 4)  # two global crops and a local one


def batch(n: int, start: int = 0) -> list:
    """[indexes, crops, targets]; every crop and target tells its index."""
    indexes = torch.arange(start, start + n)
    crops = [
        indexes.float().reshape(-1, 1, 1, 1).expand(-1, 3, side, side) + 0.1 * c
        for c, side in enumerate(SIDES)
    ]
    return [indexes, [crop.clone() for crop in crops], indexes * 10]


def tensors(batch: list) -> list[Tensor]:
    return [batch[0], *batch[1], batch[2]]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 8), m=st.integers(1, 7), mode=st.sampled_from(MODES))
def test_the_replayed_rows_come_last_with_their_own_crops_and_targets(n, m, mode):
    m = min(m, n - 1)
    indexes, crops, targets = mix(batch(n), batch(m, start=100), mode)
    kept = n - m if mode == "replace" else n
    expected = [*range(kept), *range(100, 100 + m)]
    assert indexes.tolist() == expected
    assert targets.tolist() == [10 * i for i in expected]
    for c, (crop, side) in enumerate(zip(crops, SIDES, strict=True)):
        assert crop.shape == (kept + m, 3, side, side)
        wanted = torch.tensor(expected).reshape(-1, 1, 1, 1) + 0.1 * c
        torch.testing.assert_close(crop, wanted.expand_as(crop))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(2, 8), st.integers(0, 7)),
    mode=st.sampled_from(MODES),
    dtypes=st.tuples(*[st.sampled_from([torch.float32, torch.float16, torch.bfloat16])] * 2),
    layouts=st.tuples(*[st.sampled_from([torch.contiguous_format, torch.channels_last])] * 2),
)
def test_whatever_the_replayed_rows_are_the_batch_keeps_its_form(sizes, mode, dtypes, layouts):
    n, m = sizes[0], min(sizes[1], sizes[0] - 1)
    parts = batch(n), batch(m, start=100)
    for part, dtype, layout in zip(parts, dtypes, layouts):
        part[1] = [crop.to(dtype).contiguous(memory_format=layout) for crop in part[1]]
    before = copy.deepcopy(parts)
    mixed = mix(*parts, mode)
    kept = n - m if mode == "replace" else n
    for got, fresh, rare in zip(*(tensors(part) for part in (mixed, *parts)), strict=True):
        assert (got.dtype, got.device, len(got)) == (fresh.dtype, fresh.device, kept + m)
        if got.ndim == 4:
            assert got.is_contiguous(memory_format=layouts[0])
        rows = [*fresh[:kept].tolist(), *rare.to(got.dtype).tolist()]
        assert got.tolist() == rows
    for part, old in zip(parts, before):
        torch.testing.assert_close(tensors(part), tensors(old), rtol=0, atol=0)


def test_replace_keeps_the_size_of_the_batch():
    mixed = mix(batch(8), batch(3, 100), "replace")
    assert {len(x) for x in tensors(mixed)} == {8}


def test_append_grows_every_crop():
    mixed = mix(batch(8), batch(3, 100), "append")
    assert {len(x) for x in tensors(mixed)} == {11}


def test_the_default_is_to_replace():
    assert mix(batch(8), batch(3, 100))[0].tolist() == [0, 1, 2, 3, 4, 100, 101, 102]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_rows_that_are_dropped_are_drawn_for_all_crops_alike(layout):
    fresh, order = batch(8), drawn_order(8, 3, 5, 2)
    fresh[1] = [crop.contiguous(memory_format=layout) for crop in fresh[1]]
    indexes, crops, targets = mix(fresh, batch(3, 100), "replace", order)
    kept = sorted(order[:5].tolist())
    assert kept != [0, 1, 2, 3, 4]
    assert (
        indexes.tolist() == [*kept, 100, 101, 102] and targets.tolist() == (10 * indexes).tolist()
    )
    for c, crop in enumerate(crops):
        assert crop.is_contiguous(memory_format=layout)
        torch.testing.assert_close(crop[:, 0, 0, 0], indexes + 0.1 * c)


def test_the_drawn_order_is_a_function_of_its_seeds_and_leaves_no_row_out_for_long():
    before = torch.get_rng_state()
    orders = [drawn_order(8, 2, 1, step) for step in range(400)]
    assert all(sorted(order.tolist()) == [*range(8)] for order in orders)
    assert all(torch.equal(order, drawn_order(8, 2, 1, s)) for s, order in enumerate(orders))
    assert any(not torch.equal(order, drawn_order(8, 2, 2, s)) for s, order in enumerate(orders))
    dropped = torch.stack(orders)[:, 6:].flatten().bincount(minlength=8)
    assert all(count == pytest.approx(100, rel=0.4) for count in dropped.tolist())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", MODES)
def test_no_input_is_changed_or_shared(mode):
    fresh, rare = batch(5), batch(2, 100)
    before = copy.deepcopy((fresh, rare))
    mixed = mix(fresh, rare, mode)
    for tensor in tensors(mixed):
        tensor.zero_()
    torch.testing.assert_close(tensors(fresh), tensors(before[0]), rtol=0, atol=0)
    torch.testing.assert_close(tensors(rare), tensors(before[1]), rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_the_dtypes_are_those_of_the_batch(mode):
    fresh, rare = batch(5), batch(2, 100)
    fresh[1] = [crop.half() for crop in fresh[1]]
    rare[0], rare[2] = rare[0].int(), rare[2].int()
    indexes, crops, targets = mix(fresh, rare, mode)
    assert [crop.dtype for crop in crops] == [torch.float16] * 3
    assert indexes.dtype == targets.dtype == torch.int64


@pytest.mark.parametrize("mode", MODES)
def test_a_single_crop_may_be_a_plain_tensor(mode):
    fresh, rare = batch(4), batch(1, 100)
    fresh[1], rare[1] = fresh[1][0], rare[1][0]
    indexes, crops, _ = mix(fresh, rare, mode)
    assert crops[:, 0, 0, 0].tolist() == indexes.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_crops_of_another_size_are_an_error(mode):
    rare = batch(2, 100)
    rare[1][2] = rare[1][2][..., :2]
    with pytest.raises(ValueError, match=r"expected rows of shape \(3, 4, 4\), got \(3, 4, 2\)"):
        mix(batch(5), rare, mode)


@pytest.mark.parametrize("mode", MODES)
def test_another_number_of_crops_is_an_error(mode):
    rare = batch(2, 100)
    rare[1].pop()
    with pytest.raises(ValueError, match="expected 3 crops a sample, got 2"):
        mix(batch(5), rare, mode)


@pytest.mark.parametrize("m", [3, 4])
def test_replace_leaves_at_least_one_fresh_row_and_append_need_not(m):
    with pytest.raises(ValueError, match=f"expected fewer than the batch's 3, got {m}"):
        mix(batch(3), batch(m, 100), "replace")
    assert len(mix(batch(3), batch(m, 100), "append")[0]) == 3 + m
