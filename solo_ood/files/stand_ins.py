"""Harmless substitutes for the classes that checkpoints hold beside tensors.

Torch's reader makes an object only of what it is given under the object's name. Here that is a
function or class of this module, so nothing of NumPy, pathlib or a training program runs.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import fractions
import pickle
import re
import types
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import omegaconf.nodes
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata

_PLAIN = re.compile(r"[?biufcmMSU][0-9]*")  # NumPy's codes of numbers, dates and texts


class Inert:
    """An object that keeps nothing of what it is made from."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _DType(Inert):
    """The type of NumPy's numbers, as far as it is plain: one with objects may run code."""

    def __init__(self, code: str, *rest: Any) -> None:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise pickle.UnpicklingError("Unsupported class numpy.dtype of objects")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        # Version, byte order, and for other than plain types shape, names and fields.
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("Unsupported class numpy.dtype with fields")
        self.order = state[1] if state[1] in "<>=" else "="


def _scalar(dtype: _DType, data: bytes) -> Any:
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("Unsupported class numpy.scalar of objects")
    if dtype.code[0] in "mM" or not data:  # its unit is elsewhere; an empty text
        return ""
    return np.frombuffer(data, dtype.order + dtype.code, count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # how pickle writes bytes


def _dict(*args: Any) -> dict[Any, Any]:
    return {}  # its items are set afterwards; the factory of a default is left out


def _list(items: Any = (), *rest: Any) -> list[Any]:
    return list(items)


def _named(path: str, make: Callable[..., Any]) -> Any:
    """Return ``make`` under another name: torch goes by ``__module__`` and ``__qualname__``."""
    module, _, name = path.rpartition(".")
    if isinstance(make, type):
        return type(name, (make,), {"__module__": module, "__qualname__": name})

    def construct(*args: Any) -> Any:
        return make(*args)

    construct.__module__, construct.__name__, construct.__qualname__ = module, name, name
    return construct


def _substitutes() -> list[Any]:
    array = _named("numpy.ndarray", Inert)
    made = [array, _named("numpy.dtype", _DType), _named("_codecs.encode", _encode)]
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        made.append(_named(f"{core}.scalar", _scalar))
        made.append(_named(f"{core}._reconstruct", lambda *args: array()))
    for module in ("pathlib", "pathlib._local"):  # the second in Python 3.13
        for name in ("Path", "PosixPath", "PurePath", "PurePosixPath"):
            made.append(_named(f"{module}.{name}", lambda *parts: PurePosixPath(*parts)))
        for name in ("WindowsPath", "PureWindowsPath"):
            made.append(_named(f"{module}.{name}", lambda *parts: PureWindowsPath(*parts)))
    for name in ("easydict.EasyDict", "addict.addict.Dict", "mmengine.config.config.ConfigDict"):
        made.append(_named(name, _dict))
    for name in ("yacs.config.CfgNode", "fvcore.common.config.CfgNode"):
        made.append(_named(name, _dict))
    for package in ("lightning.fabric", "lightning_fabric"):
        made.append(_named(f"{package}.utilities.data.AttributeDict", _dict))
    made.append(_named("pytorch_lightning.utilities.parsing.AttributeDict", _dict))
    made.append(_named("mmengine.logging.history_buffer.HistoryBuffer", Inert))
    made += [_named("collections.defaultdict", _dict), _named("collections.deque", _list)]
    return made


# Official DINO's checkpoints hold their command line, those of a method that calls Lightning's
# `save_hyperparameters` the main branch's config. To make one of these runs no code.
HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    types.SimpleNamespace,
    collections.Counter,
    DictConfig,
    ListConfig,
    ContainerMetadata,
    Metadata,
    *(node for name, node in vars(omegaconf.nodes).items() if name.endswith("Node")),
    Any,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    fractions.Fraction,
    *(dict, list, tuple, set, frozenset, int, float, complex, bool, str, bytes, bytearray, range),
    *_substitutes(),
)
