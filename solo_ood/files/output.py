"""Checks, before the work, that its output can be written."""

from __future__ import annotations

import os
from pathlib import Path

from solo_ood.errors import UserError


def is_writable(folder: Path) -> bool:
    """Whether files can be made in ``folder``, which need not be there yet."""
    # `Path.exists` raises where a folder may not be entered.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def check_writable(folder: Path, option: str, *files: str) -> None:
    """Raise ``UserError`` unless these files can be written in ``folder``.

    Args:
        folder: need not be there yet.
        option: what names it, for the message.
        files: names of files, which may be there already.
    """
    if not is_writable(folder):
        raise UserError(
            option,
            expected="a folder that can be written",
            got=folder,
            remedy="Use one below a folder that you may write to.",
        )
    for path in (folder / name for name in files):
        # Also a link to nowhere, and a write-protected file.
        if os.path.lexists(path) and not (path.is_file() and os.access(path, os.W_OK)):
            raise UserError(
                option,
                expected="files that can be written over",
                got=f"{path}, which cannot be",
                remedy="Move it, or name another folder.",
            )
