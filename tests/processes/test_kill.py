"""``kill -9`` at any moment: every checkpoint loads, the resumed run is the uninterrupted one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from warm_host import SMALL, Run, difference, straight, trained, warm_host

# Another file system for TMPDIR, if there is one: Lightning's own way is atomic on one only.
OTHER = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}


def strike(run: Run, moment: str, chance: random.Random, duration: float) -> bool:
    """Kill ``run`` at ``any`` moment, in the ``write`` of a checkpoint or as its ``name`` appears.

    Returns:
        whether a checkpoint was being written.
    """
    old = set(run.partial())  # of a process that was killed before there was any checkpoint
    if moment == "any":
        until = time.monotonic() + chance.uniform(0, 0.8 * duration)
        run.until(lambda: time.monotonic() > until)
    else:
        files = run.partial if moment == "write" else run.saved
        seen = set(files())
        for _ in range(chance.randint(1, 3)):  # in which epoch
            run.until(lambda seen=frozenset(seen): set(files()) - seen)
            seen |= set(files())
        if moment == "write":
            time.sleep(chance.choice([0, 0, 0.01, 0.03]))
    if run.poll() is None:
        run.kill()
        assert run.wait() in (-signal.SIGKILL, 0)  # it may just have ended
    return bool(set(run.partial()) - old)


def survive(
    folder: Path, overrides: list[str], moment: str, kills: int, chance: random.Random
) -> set[str]:
    """Kill a run up to ``kills`` times, resume it, compare; return what the kills met."""
    whole, duration = straight(*overrides)
    met = set()
    for _ in range(chance.randint(1, kills)):
        run = warm_host().start(folder, *overrides, **OTHER)
        met |= {"write"} if strike(run, moment, chance, duration) else set()
        checkpoints = run.checkpoints()
        epochs = [trained(path)["epoch"] for path in checkpoints]  # reads all of every file
        assert epochs == sorted(epochs)
        if run.status == 0:
            met.add("end")
        else:
            met.add("later" if epochs else "first epoch")
        if len({path.parent for path in checkpoints}) < len(checkpoints):
            met.add("two checkpoints")

    run = warm_host().start(folder, *overrides, **OTHER)
    assert run.wait() == 0, run.stderr[-3000:]
    if checkpoints:
        # Of two in the folder of one run the main branch takes either; they are one epoch apart.
        newest = [p.relative_to(folder) for p in checkpoints if p.parent == checkpoints[-1].parent]
        assert Path(run.resumed_from()) in newest
        assert not list((folder / newest[0]).parent.glob(".*.partial"))
    else:
        assert run.resumed_from() is None
    assert difference(whole, trained(run.checkpoints()[-1])) is None
    return met


def survive_all(
    folder: Path, overrides: list[str], moments: list[str], kills: int = 1
) -> Counter[str]:
    """One trial a moment; print them, return how many trials met what."""
    met: Counter[str] = Counter()
    for trial, moment in enumerate(moments):
        began = time.monotonic()
        found = survive(folder / str(trial), overrides, moment, kills, random.Random(trial))
        shutil.rmtree(folder / str(trial))  # 40 MB a checkpoint
        met.update(found)
        print(f"{trial:3} {moment:6} {time.monotonic() - began:5.1f} s  {', '.join(sorted(found))}")
    print(dict(met))
    return met


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, tiny, registered, digits_cache):
    met = survive_all(tmp_path, [*tiny, *SMALL], ["write", "any", "name", "any"])
    assert met["write"] >= 1


@pytest.mark.long
def test_thirty_two_killed_runs_go_on(tmp_path, tiny, registered, digits_cache):
    met = survive_all(tmp_path, [*tiny, *SMALL], ["any", "write", "any", "name"] * 8, kills=2)
    assert met["write"] >= 5 and met["later"] >= 8 and met["two checkpoints"] >= 1
