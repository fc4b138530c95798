"""Tensors of a device that is not here, with values: who reads one on the host is caught.

A GPU makes the host wait wherever a value is read from it or a shape depends on one. Here the
values are on the CPU, but nothing else knows: the tensors say that they are on a device of which
torch has no values, so that every operation comes by ``FarDevice``, which refuses those that would
wait.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
# What the tensors say of themselves: a device that autocast knows and whose use loads nothing.
DEVICE = torch.device("mps", 0)
# What torch takes them for: the one device without values whose guards are everywhere.
META = torch.device("meta")
# Operations whose result the host sees, or whose shape depends on values.
WAITING = {
    aten._local_scalar_dense,  # item, bool, int, float
    aten._linalg_check_errors,
    aten.bincount,
    aten.equal,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
}


class HostWaited(Exception):
    """An operation that would make the host wait for the device."""


class Far(torch.Tensor):
    """A tensor on ``DEVICE``."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Far:
        far = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=META,
        )
        far.inner = inner
        return far

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # an attribute in torch's stubs
        return DEVICE

    def tolist(self) -> list[Any]:  # torch's own would refuse any subclass
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of FarDevice")


class FarDevice(TorchDispatchMode):
    """While it is on, ``Far`` tensors can be computed with, but not waited for.

    Args:
        copied_in: names of functions that may copy to the host.
    """

    def __init__(self, copied_in: Collection[str] = ()) -> None:
        super().__init__()
        self.copied_in = copied_in
        self.copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        far = [x for x in tensors if isinstance(x, Far)]
        target = kwargs.get("device")
        target = DEVICE if target in (META, DEVICE) else target
        if far:
            self._check(func, args, kwargs, tensors, target)
        elif func.overloadpacket is aten._to_copy and target == DEVICE:
            if not kwargs.get("non_blocking"):
                raise HostWaited(f"{func} to the device, blocking")
        if target == DEVICE:
            kwargs["device"] = torch.device("cpu")
        back = {id(x.inner): x for x in far}
        result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if target != DEVICE and (not far or target is not None):
            return result  # of the host, or copied to it
        return tree_map(lambda x: _far(x, back), result)

    def _check(self, func: Any, args: Any, kwargs: Any, tensors: Any, target: Any) -> None:
        name = func.overloadpacket
        if name in WAITING:
            raise HostWaited(f"{func} reads the device")
        if name in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            for index in args[1]:
                if index is not None and not isinstance(index, Far):
                    raise HostWaited(f"{func} with an index on the host")
                if index is not None and index.dtype in (torch.bool, torch.uint8):
                    raise HostWaited(f"{func} with a mask, whose rows have to be counted")
        to_host = name is aten._to_copy and target is not None and target != DEVICE
        if to_host or (name is aten.copy_ and not isinstance(args[0], Far)):
            if not self._called_by(self.copied_in):
                raise HostWaited(f"{func} to the host")
            self.copies += 1
        elif name is aten.copy_ and not isinstance(args[1], Far) and args[1].ndim:
            if not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
                raise HostWaited(f"{func} to the device, blocking")
        elif any(x.ndim and not isinstance(x, Far) for x in tensors):
            raise RuntimeError(f"{func}: tensors of two devices")

    @staticmethod
    def _called_by(names: Collection[str]) -> bool:
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_name in names:
                return True
            frame = frame.f_back
        return False


def move(module: torch.nn.Module) -> None:
    """Bring the buffers of ``module`` to the far device."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = Far(buffer)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, Far) else x


def _far(x: Any, back: dict[int, Far]) -> Any:
    """Wrap a result; what was changed in place stays the same object."""
    if not isinstance(x, torch.Tensor):
        return x
    return back[id(x)] if id(x) in back else Far(x)
