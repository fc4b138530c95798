"""``solo-ood stream``: each item one verdict, in order, whatever stops it."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from solo_ood.errors import UserError
from solo_ood.selection.threshold import FixedThreshold, QuotaThreshold
from solo_ood.stream.options import Judging, Kept, Scoring, Source, StreamOptions
from solo_ood.stream.run import run_stream
from solo_ood.stream.verdicts import VerdictStream

N = 20
JUDGING = Judging(percentile=0.8, n=N)
SCORING = Scoring(
    spec="resnet18:random", n_reference=32, min_samples=4, image_size=32, batch_size=3
)


def lines_of(scores) -> bytes:
    return b"".join(b"f%d.jpg,%.6f\n" % (i, score) for i, score in enumerate(scores))


def piped(content: bytes, *said, **options) -> None:
    """Run on what a pipe holds; what it says is added to ``said[0]``."""
    read, write = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(write, content), os.close(write)))
    writer.start()
    try:
        asked = StreamOptions(**{"judging": JUDGING, **options})
        run_stream(asked, said[0].append if said else (lambda text: None), read)
    finally:
        writer.join()
        os.close(read)


def rows(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        head, *found = csv.reader(file)
    assert head == ["name", "score", "rare"]
    return [tuple(row) for row in found]


def frames(folder: Path, numbers, seed: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        pixels = rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"frame_{number}.png")


def images(folder: Path, **source) -> dict:
    return {"source": Source(frames=str(folder), **source), "scoring": SCORING}


@settings(deadline=None, max_examples=60)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0, float("nan"), float("inf")]),
                    max_size=70),
    cuts=st.lists(st.integers(0, 70), max_size=5),
    make=st.sampled_from([QuotaThreshold, FixedThreshold]),
)  # fmt: skip
def test_verdicts_do_not_depend_on_calls_nor_on_a_stop(scores, cuts, make):
    names = [str(i) for i in range(len(scores))]
    whole = VerdictStream(make(0.8, 10))
    expected = whole.take(names, scores)
    found, stream = [], VerdictStream(make(0.8, 10))
    ends = [0, *sorted(min(cut, len(scores)) for cut in cuts), len(scores)]
    for start, end in zip(ends, ends[1:]):
        found += stream.take(names[start:end], scores[start:end])
        state, stream = stream.state_dict(), VerdictStream(make(0.8, 10))
        stream.load_state_dict(state)
    assert repr(found) == repr(expected)  # NaN is not equal to itself
    assert [verdict.name for verdict in found] == names[: len(found)]
    assert len(found) + len(stream) == len(scores)
    for verdict in found:
        assert (verdict.rare is None) == (not np.isfinite(verdict.score))


def test_the_rate_is_exact(tmp_path):
    said = []
    scores = np.random.default_rng(0).random(10 * N)
    piped(lines_of(scores), said, kept=Kept(out=tmp_path / "out.csv"))
    found = rows(tmp_path / "out.csv")
    for block in range(10):
        part = found[block * N : (block + 1) * N]
        rare = {row[0] for row in part if row[2] == "yes"}
        best = np.argsort(-scores[block * N : (block + 1) * N])[: N // 5] + block * N
        assert rare == {f"f{i}.jpg" for i in best}
    assert "200 items: 200 judged, 40 of them rare (20.00%, asked for 20.00%)" in said[0]


def test_lines_without_names_tabs_and_what_is_no_score(tmp_path):
    said = []
    content = b"\xef\xbb\xbf0.5\r\n\n0.25\na,b\tc,1.5\nname,score\nnan\n" + b"0\n" * N
    piped(content, said, kept=Kept(out=tmp_path / "out.csv"))
    found = rows(tmp_path / "out.csv")
    assert found[:4] == [("1", "0.5", "yes"), ("2", "0.25", "yes"), ("a,b,c", "1.5", "yes"),
                         ("4", "", "")]  # fmt: skip
    assert "1 left out: b'name,score', no score" in said[0]
    assert "3 wait for their verdict" in said[0] and "no --state" in said[0]


def test_a_stream_goes_on_where_it_was_stopped(tmp_path):
    scores = np.random.default_rng(1).random(5 * N)
    kept = Kept(tmp_path / "out.csv", tmp_path / "state")
    piped(lines_of(scores), kept=Kept(tmp_path / "whole.csv"))
    content = lines_of(scores).splitlines(keepends=True)
    piped(b"".join(content[:33]), kept=kept)
    with kept.out.open("a") as file:  # as if it was killed between its CSV and its state
        file.write("f20.jpg,0.1,no\nf2")
    said = []
    piped(b"".join(content[33:57]), said, kept=kept)
    assert "goes on after 33 items, 13 of them waiting" in said[0]
    piped(b"".join(content), kept=kept, source=Source(from_start=True))
    assert rows(kept.out) == rows(tmp_path / "whole.csv") and len(rows(kept.out)) == 100


def test_a_killed_stream_of_frames_says_what_one_run_says(tmp_path):
    frames(tmp_path / "in", range(1, 4 * N + 5))  # 4 have no score
    piped(b"", kept=Kept(tmp_path / "whole.csv"), **images(tmp_path / "in"))
    kept = Kept(tmp_path / "out.csv", tmp_path / "state")
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        run_stream(StreamOptions(judging=JUDGING, kept=kept, **images(tmp_path / "in", follow=True,
                                                                       poll=0.1)), str)  # fmt: skip
        os._exit(0)
    until = time.monotonic() + 120
    while not (kept.state.exists() and kept.out.exists() and len(rows(kept.out)) >= N):
        assert time.monotonic() < until and os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = []
    piped(b"", said, kept=kept, **images(tmp_path / "in"))
    assert said[0].startswith("goes on after ")
    found, whole = rows(kept.out), rows(tmp_path / "whole.csv")
    assert [row[0] for row in found] == [f"frame_{i}.png" for i in range(1, 4 * N + 5)]
    assert [row[0] + row[2] for row in found] == [row[0] + row[2] for row in whole]
    assert [row[1] for row in found[:4]] == [""] * 4  # learnt, before there is a score
    np.testing.assert_allclose(*[[float(row[1]) for row in t[4:]] for t in (found, whole)],
                               rtol=1e-3)  # fmt: skip


def test_a_folder_that_grows_and_a_signal_that_ends_it(tmp_path):
    frames(tmp_path / "in", range(10))
    (tmp_path / "in" / "half.png").write_bytes(b"\x89PNG\r\n")
    kept = Kept(tmp_path / "out.csv", tmp_path / "state")

    def later():
        time.sleep(0.5)
        frames(tmp_path / "in", range(10, 30))
        until = time.monotonic() + 120
        while len(rows(kept.out)) < N and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread, said = threading.Thread(target=later), []
    thread.start()
    piped(b"", said, kept=kept, **images(tmp_path / "in", follow=True, poll=0.2))
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert "1 left out: " in said[-1] and "half.png (UnidentifiedImageError" in said[-1]
    frames(tmp_path / "in", range(30, 70))
    piped(b"", said, kept=kept, **images(tmp_path / "in", follow=True, poll=0.2, idle=0.3))
    names = [row[0] for row in rows(kept.out)]
    assert len(names) == len(set(names)) >= 60 and "half.png" in names


def test_paths_on_standard_input(tmp_path, monkeypatch):
    frames(tmp_path, range(N + 4))
    monkeypatch.chdir(tmp_path)
    content = b"".join(b"frame_%d.png\n" % i for i in range(N + 4))
    piped(content, kept=Kept(tmp_path / "out.csv"), source=Source(frames="-"), scoring=SCORING)
    found = rows(tmp_path / "out.csv")
    assert [row[0] for row in found] == [f"frame_{i}.png" for i in range(N + 4)]
    assert sum(row[2] == "yes" for row in found) == N // 5


def options(**changed) -> StreamOptions:
    return StreamOptions(**{"judging": JUDGING, **changed})


@pytest.mark.parametrize(
    "asked, words",
    [
        (options(judging=Judging(percentile=0.99, n=50)), ["--n", "at least 100 items"]),
        (options(judging=Judging(percentile=0.9, upper_percentile=0.8)), ["--upper-percentile"]),
        (options(judging=Judging(percentile=0.99999)), ["--percentile", "set --n"]),
        (options(source=Source(frames="nowhere"), scoring=SCORING), ["no folder nowhere"]),
        (options(source=Source(frames="-")), ["--embedder"]),
        (options(scoring=SCORING), ["--embedder", "--frames"]),
        (options(source=Source(follow=True)), ["--follow", "a pipe"]),
        (options(source=Source(frames="."), scoring=Scoring("resnet18:random", n_reference=8)),
         ["--min-samples", "at most --n-reference, 8"]),
        (options(kept=Kept(out=Path(__file__) / "out.csv")), ["--out"]),
    ],
)  # fmt: skip
def test_bad_options_are_one_clear_error(asked, words):
    with pytest.raises(UserError) as error:
        run_stream(asked)
    assert all(word in str(error.value) for word in words)


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    kept = Kept(tmp_path / "out.csv", tmp_path / "state")
    content = lines_of(np.random.default_rng(0).random(2 * N))
    piped(content, kept=kept)
    with pytest.raises(UserError, match="percentile: expected 0.8, as it was begun with, got 0.7"):
        piped(b"", kept=kept, judging=Judging(percentile=0.7, n=N))
    with pytest.raises(UserError, match="of: expected scores.*got frames"):
        piped(b"", kept=kept, **images(tmp_path))
    with pytest.raises(UserError, match="a file that is not empty"):
        piped(content, kept=Kept(tmp_path / "out.csv"))
    with pytest.raises(UserError, match="expected the 810 bytes .* got no file"):
        piped(content, kept=Kept(tmp_path / "other.csv", tmp_path / "state"))
    (tmp_path / "state").write_bytes(b"no state")
    with pytest.raises(UserError, match="expected what solo-ood stream wrote"):
        piped(content, kept=kept)
