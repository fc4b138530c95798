"""Whoever looks sees a file or folder complete or not at all, whatever ends who writes it."""

from __future__ import annotations

import os
import signal

import pytest

from solo_ood.files import atomic


def in_a_process(work) -> int:
    """Let a forked process do ``work`` and return its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)  # never on with the tests
    return os.waitpid(pid, 0)[1]


def killed_inside(folder) -> None:
    with folder as made:
        (made / "first").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_that_a_kill_interrupts_is_not_there(tmp_path):
    path = tmp_path / "data"
    assert in_a_process(lambda: killed_inside(atomic.staged_folder(path))) == signal.SIGKILL
    assert not path.exists()
    with atomic.staged_folder(path) as made:
        (made / "first").write_text("whole")
        assert not path.exists()
    assert (path / "first").read_text() == "whole"


def test_the_files_of_a_folder_that_a_kill_interrupts_are_those_of_before(tmp_path):
    (tmp_path / "first").write_text("before")
    assert in_a_process(lambda: killed_inside(atomic.staged_files(tmp_path))) == signal.SIGKILL
    assert (tmp_path / "first").read_text() == "before"
    with pytest.raises(RuntimeError), atomic.staged_files(tmp_path) as made:
        (made / "first").write_text("half")
        raise RuntimeError
    assert (tmp_path / "first").read_text() == "before"
    with atomic.staged_files(tmp_path) as made:
        (made / "first").write_text("after")
    assert (tmp_path / "first").read_text() == "after"


def test_the_faster_of_two_processes_wins_and_nothing_is_left_of_the_other(tmp_path):
    def create(path, text):
        path.write_text(text)
        if not (tmp_path / "file").exists():  # the other one, in the midst of it
            assert in_a_process(lambda: atomic.create(tmp_path / "file", first)) == 0

    def first(path):
        path.write_text("first")

    # The inner call is a process of its own, which is done before the outer one.
    atomic.create(tmp_path / "file", lambda path: create(path, "second"))
    assert (tmp_path / "file").read_text() == "first"

    with atomic.staged_folder(tmp_path / "folder") as second:
        with atomic.staged_folder(tmp_path / "folder") as faster:
            (faster / "name").write_text("first")
        (second / "name").write_text("second")
    assert (tmp_path / "folder/name").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_that_cannot_take_its_name_is_an_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError), atomic.staged_folder(tmp_path / "taken"):
        pass
    assert (tmp_path / "taken").read_text() == "a file"
