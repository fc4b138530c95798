"""Read checkpoints without running code that they name: a pickle can hold a call of anything."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from solo_ood.errors import UserError
from solo_ood.files.stand_ins import HARMLESS

_NAMED = re.compile(r"(?:GLOBAL|[Uu]nsupported class) ([\w.]+)")  # in torch's errors
_REASON = re.compile(r"WeightsUnpickler error:\s*(.+)")
_OWN = (
    "Use another one. If you made it yourself, open it with torch.load(PATH, weights_only=False) "
    "and save what is needed again, such as its state_dict: "
    "c = torch.load({path!r}, weights_only=False); torch.save({state}, 'weights.pth')"
)
# What downloads leave in place of a file, by its first bytes.
_OTHERS = {
    b"version https://git-lfs": ("a pointer of Git LFS", "Fetch the file itself: git lfs pull."),
    b"<": ("a web page", "Download the file itself."),
}
_FRAME = "Unsupported operand 149"  # in pickles of protocol 4 and 5
_STATE = "c['state_dict']"
_STATE_OF_MODULE = "c.state_dict()"  # of a network that was pickled as a whole


class Unreadable(Exception):
    """Why a file was not read, as a phrase after "got", and the remedy.

    Attributes:
        remedy: what to do.
    """

    def __init__(self, got: str, remedy: str) -> None:
        super().__init__(got)
        self.remedy = remedy


def read(path: Path, mmap: bool = False) -> Any:
    """Return what ``torch.save`` wrote to ``path``, on the CPU.

    Args:
        path: the file.
        mmap: leave the tensors on the disk until they are used.

    Raises:
        Unreadable: for another or a damaged file, or one that holds an object of any class that is
            not known to be harmless. No code of the file has run then.
    """
    # torch before 2.5 cannot allow any class.
    allow = getattr(torch.serialization, "safe_globals", lambda _: nullcontext())
    # Files of the format before torch 1.6 are no archives and cannot be mapped.
    to_map = mmap and zipfile.is_zipfile(path)
    how: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        # An opened file, since torch takes one that is called .safetensors for one of that format.
        with allow(list(HARMLESS)), path.open("rb") as file:
            return torch.load(path, mmap=True, **how) if to_map else torch.load(file, **how)
    except pickle.UnpicklingError as error:
        names = _unknown(path) or _NAMED.findall(str(error))
        if not names and _FRAME in str(error) and zipfile.is_zipfile(path):
            names = ["a pickle of protocol 4 or 5"]
        if not names:
            raise _damaged(error, path) from error
        got = f"{', '.join(names[:5])}, which may run code when it is read"
        is_module = any(name.startswith("torch.nn.modules.") for name in names)
        state = _STATE_OF_MODULE if is_module else _STATE
        raise Unreadable(got, _OWN.format(path=str(path), state=state)) from error
    except Exception as error:  # whatever torch raises for a file that is cut off
        raise _damaged(error, path) from error


def _damaged(error: Exception, path: Path) -> Unreadable:
    with suppress(OSError), path.open("rb") as file:
        start = file.read(32)
        for mark, (what, remedy) in _OTHERS.items():
            if start.startswith(mark):
                return Unreadable(what, remedy)
    text = str(error).strip() or type(error).__name__
    found = _REASON.search(text)
    reason = (found[1] if found else text).splitlines()[0].partition(". ")[0]
    got = f"a damaged file, or one that torch.save did not write ({reason})"
    return Unreadable(got, "Copy it again, or use another one.")


def _unknown(path: Path) -> list[str]:
    """Return the names in an archive that are neither torch's nor harmless, without using them."""
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # torch before 2.6, a file that is no archive, a pickle that is cut off
        return []


def load(path: Path, what: str = "checkpoint", mmap: bool = False) -> Mapping[str, Any]:
    """Return what ``torch.save`` wrote to ``path``, a mapping, on the CPU.

    Args:
        path: the file, which has to be there.
        what: what the user calls it, for errors.
        mmap: leave the tensors on the disk until they are used.

    Raises:
        UserError: for whatever ``read`` refuses, and what is no mapping.
    """
    try:
        loaded = read(path, mmap)
        if not isinstance(loaded, Mapping):
            raise Unreadable(f"a {type(loaded).__name__}", "Use another one.")
    except Unreadable as error:
        raise UserError(
            f"{what} {path}",
            expected="tensors, numbers, texts and containers of these, saved by torch.save",
            got=error,
            remedy=error.remedy,
        ) from error
    return loaded


def state_dict_of(checkpoint: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict in the content of a checkpoint.

    Raises:
        UserError: if there is none, or something else in its place.
    """
    state = content.get("state_dict")
    if isinstance(state, dict) and all(isinstance(key, str) for key in state):
        return state
    raise UserError(
        f"checkpoint {checkpoint}",
        expected="a state_dict",
        got=", ".join(map(str, content)) or "nothing"
        if state is None
        else f"a {type(state).__name__} in its place",
        remedy="Give a checkpoint that main_pretrain.py wrote.",
    )
