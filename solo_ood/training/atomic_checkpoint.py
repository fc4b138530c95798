"""Atomic checkpoints: complete or absent, whatever ends the process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.files.checkpoint import load


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, with local files put in place atomically.

    Lightning writes to the folder for temporary files (``TMPDIR``) and moves the result. Across
    file systems that is a copy, which a full disk or a kill cuts off: a ``.ckpt`` that does not
    load, in the place of one that did. And a small ``TMPDIR`` fails where the run has room.

    Here the temporary file lies beside the checkpoint, is flushed to the disk and then renamed. One
    that a kill leaves behind has a name that no host takes for a checkpoint; it is removed when
    training is resumed from its folder.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``, a local file; other places are left to Lightning.

        Raises:
            UserError: if it cannot be written, for instance on a full disk. Nothing is left of
                it then, and what was at ``path`` is still there.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # In memory first, as Lightning does: on a full disk torch's own writer dies of an internal
        # check and does not tell why.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            atomic.write(content.getbuffer(), Path(path))
        except OSError as error:
            raise UserError(
                f"checkpoint {path}",
                expected=f"a folder that takes {len(content.getbuffer()) / 1e6:.1f} MB more",
                got=f"{error.strerror or error} (errno {error.errno})",
                remedy="Earlier checkpoints are untouched: make room or set checkpoint.dir to "
                "another file system, and go on from the newest one "
                "(auto_resume.enabled=True or resume_from_checkpoint=PATH).",
            ) from error

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read ``path``, on the CPU; remove what killed processes left unfinished beside it.

        No code of a local file runs, with any version of Lightning (2.4 and 2.5 trust all files),
        unless ``weights_only=False`` says so. Other places are left to Lightning.

        Raises:
            UserError: if the file is cut off, or holds more than tensors and plain values.
        """
        if kwargs.get("weights_only") is False or not Path(path).is_file():
            return super().load_checkpoint(path, *args, **kwargs)
        atomic.remove_leftovers(Path(path).parent)
        return dict(load(Path(path)))


def write_atomically(strategy: Any) -> None:
    """Let a Lightning strategy write its checkpoints atomically, unless it has a way of its own.

    On Windows Lightning's way stays: there an open, that is locked, file cannot be renamed.
    """
    if atomic.CAN_LOCK and type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
