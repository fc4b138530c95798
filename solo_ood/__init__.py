"""Out-of-distribution-aware DINO for solo-learn: find the rare samples of a stream and learn them.

Importing this package has no side effect and does not import torch: public names are resolved on
first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "register": "training.plugin",
    "OODConfig": "settings.schema",
    "RareQueue": "selection.rare_queue",
    "RareSelector": "selection.selector",
    "make_scorer": "selection.scorers",
    "make_threshold": "selection.threshold",
    "mix": "replay.mixing",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
