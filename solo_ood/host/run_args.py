"""Read solo-learn's ``args.json``, the settings beside a run's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from solo_ood.errors import UserError

NAME = "args.json"


def has_args(folder: Path) -> bool:
    """Whether ``folder`` is that of a run."""
    return (folder / NAME).is_file()


def settings_folder(checkpoint: Path) -> Path:
    """Return the folder of the ``args.json`` that belongs to a checkpoint: usually its own.

    A run's name ``a/b`` makes solo-learn save ``RUN/a/b-0-ep=9.ckpt`` beside ``RUN/args.json``.
    """
    own, *above = checkpoint.absolute().parents[:5]
    if not has_args(own):
        for folder in above:
            if not has_args(folder):
                continue
            name = str(read_args(folder).get("name", ""))
            if (folder / name).parent == own:
                return folder
    return checkpoint.parent


def read_args(folder: Path) -> dict[str, Any]:
    """Return the ``args.json`` of a run's folder.

    Raises:
        UserError: if it is missing or cut off.
    """
    path = require_file(folder / NAME)
    try:
        args = json.loads(path.read_text())
        if isinstance(args, dict):
            return args
        got = f"a {type(args).__name__}"
    except ValueError as error:  # what is no JSON, or no text
        got = str(error)
    raise UserError(
        str(path),
        expected="the settings of a run, as JSON",
        got=got,
        remedy="Copy it again from the folder of the run.",
    )


def require_file(path: Path) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        UserError: otherwise.
    """
    if not path.is_file():
        raise UserError(
            "checkpoint",
            expected="a .ckpt file with its args.json beside it",
            got=f"no file {path}",
            remedy="Give the checkpoint that main_pretrain.py wrote.",
        )
    return path
