"""The folder for what can be computed anew."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$SOLO_OOD_CACHE``, by default ``~/.cache/solo-ood``; it need not exist."""
    return Path(os.environ.get("SOLO_OOD_CACHE", Path.home() / ".cache" / "solo-ood"))
