"""Text from users and file systems: what can be shown of it, and the paths in it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

# Halves of surrogate pairs stand for the bytes of file names that are not UTF-8; control
# characters may be part of a name, too.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return ``text`` with what cannot be shown as an escape: ``caf\xe9.jpg``, ``a\nb``."""
    return _HIDDEN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as `os.fsdecode` keeps it
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode()


def few(names: Sequence[str], most: int = 10) -> str:
    """Return the names in a row; of many the first, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def user_path(text: str) -> Path:
    """Return a path that a user wrote; ``~`` is the home folder, as in a shell."""
    return Path(os.path.expanduser(text))
