"""``solo-ood stream``: scores or frames as they come, a verdict for each."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solo_ood.errors import UserError
from solo_ood.files.text import few, printable
from solo_ood.options.field import check
from solo_ood.selection.scorers import make_scorer
from solo_ood.selection.threshold import make_threshold
from solo_ood.settings.block import block_size, flag_rate
from solo_ood.settings.schema import MOST_KEPT, ScorerConfig, ThresholdConfig
from solo_ood.stream import sources
from solo_ood.stream.options import StreamOptions
from solo_ood.stream.record import Record
from solo_ood.stream.stop import StopSignals
from solo_ood.stream.verdicts import VerdictStream

Items = tuple[list[str], Tensor]  # names, and scores (N,)
STDIN = "-"


class _Taken:
    """Names of the frames that were taken in, as 8 bytes each."""

    def __init__(self, hashes: Tensor | None = None) -> None:
        self.hashes: set[int] = set() if hashes is None else set(hashes.tolist())

    def __contains__(self, name: str) -> bool:
        return _hash(name) in self.hashes

    def add(self, names: list[str]) -> None:
        self.hashes.update(map(_hash, names))

    def tensor(self) -> Tensor:
        return torch.tensor(sorted(self.hashes), dtype=torch.int64)


def _hash(name: str) -> int:
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class Stream:
    """A stream that can be made, with all that its next call needs.

    Args:
        options: checked.

    Raises:
        UserError: for bad options, networks or weights.
    """

    def __init__(self, options: StreamOptions) -> None:
        self.options = options
        judging = options.judging
        self.verdicts = VerdictStream(make_threshold(_threshold_settings(options)))
        self.taken, self.n_taken = _Taken(), 0
        self.bad: list[str] = []
        self.settings: dict[str, Any] = {
            **asdict(judging), "n": self.verdicts.threshold.n, "of": "scores"
        }  # fmt: skip
        self.frames = None
        if options.source.frames is not None:
            self.frames = _frame_scorer(options)
            scoring = {k: v for k, v in asdict(options.scoring).items() if k != "spec"}
            self.settings |= scoring | {"of": "frames"}
            self.settings["embedder"] = self.frames.embedder.fingerprint

    def items(self, stop: StopSignals, file: int = 0) -> Iterator[Items]:
        """Yield what comes, as much at a time as is there.

        Args:
            stop: ends the wait for more.
            file: descriptor of standard input.
        """
        source = self.options.source
        if self.frames is None:
            for found in sources.lines(file, stop):
                yield self._scores_of(found)
        elif source.frames == STDIN:
            for found in sources.lines(file, stop):
                names = [os.fsdecode(line) for line in found]
                yield from self._scored([Path(name) for name in names], stop, Path())
        else:
            root = Path(source.frames or "")
            known = self.taken.__contains__
            follow = (source.follow, source.poll, source.idle)
            for paths in sources.images(root, known, stop, *follow):
                yield from self._scored(paths, stop, root)

    def _scores_of(self, found: list[bytes]) -> Items:
        names: list[str] = []
        scores: list[float] = []
        for line in found:
            try:
                name, score = sources.named_score(line, self.n_taken + len(names) + 1)
            except ValueError:
                self.bad.append(f"{line[:60]!r}, no score")
                continue
            names.append(name)
            scores.append(score)
        return names, torch.tensor(scores, dtype=torch.float32)

    def _scored(self, paths: list[Path], stop: StopSignals, root: Path) -> Iterator[Items]:
        if self.frames is None:
            return
        for batch, scores in self.frames.scored(paths):
            names = [str(path.relative_to(root) if root != Path() else path) for path in batch]
            if root != Path():
                self.taken.add(names)
            yield names, scores
            if stop.asked:
                return

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only."""
        return {
            "verdicts": self.verdicts.state_dict(),
            "frames": None if self.frames is None else self.frames.state_dict(),
            "taken": self.taken.tensor(),
            "n_taken": self.n_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.verdicts.load_state_dict(state["verdicts"])
        if self.frames is not None:
            self.frames.load_state_dict(state["frames"])
        self.taken, self.n_taken = _Taken(state["taken"]), state["n_taken"]


def run_stream(
    options: StreamOptions, show: Callable[[str], None] | None = None, file: int = 0
) -> None:
    """Judge a stream; the verdicts go to ``--out`` or standard output, what is said to ``show``.

    Args:
        options: what is asked for.
        show: by default standard error, since standard output holds the verdicts.
        file: descriptor to read in place of standard input.

    Raises:
        UserError: for bad options, networks or weights, and a state that does not fit.
    """
    show = show or partial(print, file=sys.stderr)
    _check(options)
    record = Record(options.kept.out, options.kept.state)
    stream = Stream(options)
    saved = record.saved(stream.settings)
    if saved is not None:
        stream.load_state_dict(saved["stream"])
        show(f"goes on after {stream.n_taken:,} items, {len(stream.verdicts):,} of them waiting")
    record.open(None if saved is None else saved["bytes"])
    try:
        with StopSignals() as stop:
            _judge(stream, record, stop, file)
    except BrokenPipeError:  # the reader has seen enough, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        record.close()
    show("\n".join(_summary(stream)))


def _judge(stream: Stream, record: Record, stop: StopSignals, file: int) -> None:
    skip = stream.n_taken if stream.options.source.from_start else 0
    for names, scores in stream.items(stop, file):
        if skip:  # of an input that starts over
            passed = min(skip, len(names))
            skip, names, scores = skip - passed, names[passed:], scores[passed:]
        verdicts = stream.verdicts.take(names, scores)
        stream.n_taken += len(names)
        record.write(verdicts)
        record.save(stream.settings, stream.state_dict)
    record.save(stream.settings, stream.state_dict, now=True)


def _check(options: StreamOptions) -> None:
    check(options)
    source, scoring = options.source, options.scoring
    frames = source.frames
    wrong = None
    if frames is None and scoring.spec is not None:
        wrong = ("--embedder", "--frames, of which it is the network", "scores on standard input",
                 "Give --frames DIR, or leave it out.")  # fmt: skip
    elif frames is not None and scoring.spec is None:
        wrong = ("--frames", "--embedder with the network that scores them", "none",
                 "Give it: --embedder SPEC, see solo-ood measure --help.")  # fmt: skip
    elif frames not in (None, STDIN) and not Path(frames or "").is_dir():
        wrong = ("--frames", "a folder of images, or -", f"no folder {frames}",
                 f"Check its spelling; relative paths count from {Path.cwd()}.")  # fmt: skip
    elif source.follow and frames in (None, STDIN):
        wrong = ("--follow", "--frames with a folder", "standard input",
                 "Leave it out: a pipe is read until it ends.")  # fmt: skip
    elif scoring.min_samples > scoring.n_reference:
        wrong = ("--min-samples", f"at most --n-reference, {scoring.n_reference}",
                 str(scoring.min_samples), "Raise --n-reference, or lower it.")  # fmt: skip
    if wrong is not None:
        what, expected, got, remedy = wrong
        raise UserError(what, expected=expected, got=got, remedy=remedy)


def _threshold_settings(options: StreamOptions) -> ThresholdConfig:
    """Return the threshold's settings.

    Raises:
        UserError: for a band that is none, or a block that cannot hold one flag.
    """
    judging = options.judging
    p, upper, n = judging.percentile, judging.upper_percentile, judging.n
    if upper is not None and upper <= p:
        raise UserError(
            "--upper-percentile",
            expected=f"a share above --percentile, {p}",
            got=upper,
            remedy="Raise it, or leave it out.",
        )
    rate = flag_rate(p, upper)
    if n is None and block_size(p, upper) > MOST_KEPT:
        raise UserError(
            "--percentile",
            expected=f"a block of at most {MOST_KEPT:,} items",
            got=f"{p}, of which {block_size(p, upper):,} hold 100 that are rare",
            remedy="Lower it, or set --n.",
        )
    if n is not None and n * rate < 1:
        raise UserError(
            "--n",
            expected=f"at least {ceil(1 / rate)} items, one of which is rare",
            got=n,
            remedy="Raise it: 100 rare ones a block are a good number.",
        )
    return ThresholdConfig(judging.threshold, p, upper, n)


def _frame_scorer(options: StreamOptions) -> Any:
    from solo_ood.embedding.networks import make_embedder
    from solo_ood.stream.frames import FrameScorer

    scoring = options.scoring
    embedder = make_embedder(scoring.spec or "")
    cfg = ScorerConfig(
        name=scoring.by, n_reference=scoring.n_reference, min_samples=scoring.min_samples
    )
    scorer = make_scorer(cfg, embedder.dim)
    return FrameScorer(embedder, scorer, scoring.image_size, scoring.batch_size)


def _summary(stream: Stream) -> list[str]:
    threshold = stream.verdicts.threshold
    judged, flagged, waiting = threshold.n_judged, threshold.n_flagged, len(stream.verdicts)
    lines = [f"{stream.n_taken:,} items: {judged:,} judged, {flagged:,} of them rare"]
    if judged:
        lines[0] += f" ({flagged / judged:.2%}, asked for {float(threshold.rate):.2%})"
    if threshold.worst_window:
        lines.append(
            f"of any 1,024 in a row the share differs by {threshold.worst_window:.1%} at most"
        )
    if waiting:
        lines.append(
            f"{waiting:,} wait for their verdict, until a block of {threshold.n:,} is full"
            + ("" if stream.options.kept.state else "; they are lost: no --state")
        )
    bad = [*stream.bad, *(stream.frames.unreadable if stream.frames else ())]
    if bad:
        lines.append(f"{len(bad):,} left out: {few([printable(text) for text in bad], 3)}")
    return lines
