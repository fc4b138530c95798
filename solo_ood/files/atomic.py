"""Atomic files and folders: complete or absent, written under another name and then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module, for the type checker

SUFFIX = ".partial"
CAN_LOCK = fcntl is not None


def write(content: bytes | memoryview, path: Path) -> None:
    """Put a file with ``content`` at ``path``, in one step and on the disk.

    Raises:
        OSError: if that fails; nothing has changed then.
    """
    temporary = _temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            _lock(file.fileno(), wait=True)
            if not temporary.exists():  # taken for a leftover before it was locked
                return write(content, path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut may leave the name without the content
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    with suppress(OSError):  # not every system can flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def create(path: Path, make: Callable[[Path], None]) -> None:
    """Let ``make`` write the file ``path``, under another name; a faster process's file stays."""
    temporary = _temporary_name(path)
    try:
        make(temporary)
        try:
            os.link(temporary, path)  # fails, unlike a rename, if another process was faster
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``, which is removed unless it got another name."""
    temporary = _temporary_name(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Yield a folder that gets the name ``path`` in the end; a faster process's folder stays."""
    with _temporary_folder(path) as temporary:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of ``path``, and of what is there, in the end."""
    with _temporary_folder(path) as temporary:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)


@contextmanager
def staged_files(out: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved to ``out`` when all of them are whole."""
    out.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(out / "file")  # only of this folder we know that we may write to it
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what ``write`` of a dead process left behind; where locks do not work it stays."""
    for path in folder.glob(f".{'[0-9a-f]' * 32}{SUFFIX}"):
        with suppress(OSError), open(path, "rb+") as file:
            if _lock(file.fileno(), wait=False):
                path.unlink()


def _temporary_name(path: Path) -> Path:
    """Return a name of its own: process ids are not enough, other nodes may share the folder."""
    # No `.ckpt` at the end and no `ckpt_` in it: the hosts and Lightning look for these.
    return path.parent / f".{uuid4().hex}{SUFFIX}"


def _lock(file: int, wait: bool) -> bool:
    """Lock an open file until it is closed, which the system does for a process that dies."""
    if not CAN_LOCK:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without locks
        return False
    return True
