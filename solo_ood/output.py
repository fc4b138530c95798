"""Where a command writes: looked at before its work, which would be lost after it."""

from __future__ import annotations

import os
from pathlib import Path

from solo_ood.errors import UserError


def is_writable(folder: Path) -> bool:
    """Whether files can be made in ``folder``, which need not be there yet."""
    # `Path.exists` raises where a folder may not be entered.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def check_writable(folder: Path, option: str) -> None:
    """Raise ``UserError`` unless files can be made in ``folder``.

    Args:
        folder: need not be there yet.
        option: what names it, for the message.
    """
    if not is_writable(folder):
        raise UserError(
            option,
            expected="a folder that can be written",
            got=folder,
            remedy="Use one below a folder that you may write to.",
        )
