"""Read a class folder as torchvision does; every fault is a UserError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from solo_ood.errors import UserError


def image_folder(path: str | Path, transform: Any = None) -> Any:
    """Return torchvision's ``ImageFolder`` at ``path``: ``samples``, ``targets``, ``classes``.

    Raises:
        UserError: for a folder that is gone or may not be read, has no class folders, or an empty
            one.
    """
    from torchvision.datasets import ImageFolder  # seconds to import

    try:
        return ImageFolder(str(path), transform)
    except OSError as error:
        raise UserError(
            "labelled images",
            expected="a folder of class folders with images in each",
            got=f"{path} ({str(error).splitlines()[0]})",
            remedy="Give an ImageFolder.",
        ) from error
