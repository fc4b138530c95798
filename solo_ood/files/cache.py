"""The cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from solo_ood.files.text import user_path


def cache_folder() -> Path:
    """Return ``$SOLO_OOD_CACHE``, by default ``~/.cache/solo-ood``; it need not exist."""
    return user_path(os.environ.get("SOLO_OOD_CACHE", "~/.cache/solo-ood"))
