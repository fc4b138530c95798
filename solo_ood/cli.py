"""The console command ``solo-ood``: evaluate and export a run; measure, rank, explore, study."""

# What a command needs is imported when it runs: `--help` and errors of spelling take no time.

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from solo_ood.benchmark import options as measure_options
from solo_ood.benchmark.options import MeasureOptions
from solo_ood.console import show, user_errors
from solo_ood.data import options as data_options
from solo_ood.data.options import LongtailOptions
from solo_ood.errors import UserError, unknown_name
from solo_ood.evaluation import options as evaluation_options
from solo_ood.evaluation.options import WEIGHTS, EvaluateOptions
from solo_ood.explore import options as explore_options
from solo_ood.explore.options import ExploreOptions
from solo_ood.mining import options as rank_options
from solo_ood.mining.options import RankOptions
from solo_ood.options import command_line
from solo_ood.options.field import option
from solo_ood.stream import options as stream_options
from solo_ood.stream.options import StreamOptions
from solo_ood.study import options as study_options
from solo_ood.study.options import StudyOptions


@dataclass(frozen=True)
class ExportOptions:
    """What ``solo-ood export`` is asked to do."""

    checkpoint: Path = option(
        help="a .ckpt of dino_ood, args.json beside it, or its folder", positional=True
    )
    out: Path = option(help="folder to write the checkpoint and args.json to", positional=True)
    weights: str = option("teacher", "what the checkpoint is to hold", choices=WEIGHTS)


@dataclass(frozen=True)
class ReportOptions:
    """What ``solo-ood report`` is asked to do."""

    run: Path = option(help="folder with the .ckpt and its args.json", positional=True)
    out: Path | None = option(None, "folder for the pictures; default: RUN/report", metavar="DIR")
    metrics: Path | None = option(None, "the run's metrics.csv; default: RUN's", metavar="CSV")


def _export(options: ExportOptions) -> None:
    from solo_ood.runs.export import export

    show(f"wrote {export(options.checkpoint, options.out, options.weights)}")


def _report(options: ReportOptions) -> None:
    from solo_ood.runs.report import report

    show(report(options.run, options.out, options.metrics))


def _evaluate(options: EvaluateOptions) -> None:
    from solo_ood.evaluation.evaluate import evaluate

    evaluate(replace(options, command=_written()), show)


def _measure(options: MeasureOptions) -> None:
    from solo_ood.benchmark.run import measure_detectors

    measure_detectors(replace(options, command=_written()), show)


def _study(options: StudyOptions) -> None:
    from solo_ood.study.run import run_study

    n_failed = run_study(replace(options, command=_written()), show)
    if n_failed:
        raise SystemExit(1)


def _rank(options: RankOptions) -> None:
    from solo_ood.mining.rank import rank_frames

    rank_frames(replace(options, command=_written()), show)


def _explore(options: ExploreOptions) -> None:
    try:
        from solo_ood.explore.serve import explore
    except ImportError as error:
        raise UserError(
            "solo-ood explore",
            expected="the package aiohttp, which serves the page",
            got=str(error),
            remedy="Install it: pip install aiohttp.",
        ) from error

    explore(options, show)


def _stream(options: StreamOptions) -> None:
    from solo_ood.stream.run import run_stream

    run_stream(options)


def _longtail(options: LongtailOptions) -> None:
    from solo_ood.data.longtail import make_longtail

    make_longtail(options, show)


def _written() -> str:
    return shlex.join(["solo-ood", *sys.argv[1:]])


@dataclass(frozen=True)
class Command:
    """A command of ``solo-ood``.

    Attributes:
        help: what it does, in a line.
        options: the dataclass of its options.
        run: takes these.
        epilog: the end of its help.
    """

    help: str
    options: type
    run: Callable[[Any], None]
    epilog: str = ""


COMMANDS = {
    "export": Command(
        "write a checkpoint that stock solo-learn evaluates by itself",
        ExportOptions,
        _export,
    ),
    "report": Command("summary and pictures of a dino_ood run", ReportOptions, _report),
    "evaluate": Command(
        "accuracy of k-NN and a linear probe: Many, Medium, Few classes",
        EvaluateOptions,
        _evaluate,
        evaluation_options.EPILOG,
    ),
    "measure": Command(
        "measure how well detectors find rare images of labelled data",
        MeasureOptions,
        _measure,
        measure_options.EPILOG,
    ),
    "study": Command(
        "pre-train and evaluate arms side by side, in pairs",
        StudyOptions,
        _study,
        study_options.EPILOG,
    ),
    "rank": Command(
        "list the rare scenes of unlabelled images",
        RankOptions,
        _rank,
        rank_options.EPILOG,
    ),
    "explore": Command(
        "look at a ranking in the browser, answer, and rank again",
        ExploreOptions,
        _explore,
        explore_options.EPILOG,
    ),
    "stream": Command(
        "a verdict for each score or frame as it comes, at a fixed rate",
        StreamOptions,
        _stream,
        stream_options.EPILOG,
    ),
    "data longtail": Command(
        "link a long-tailed subset of an image folder",
        LongtailOptions,
        _longtail,
        data_options.EPILOG,
    ),
}
ALIASES = {"detect": "measure"}


def parse(argv: Sequence[str]) -> tuple[Command, Any]:
    """Return the command and its options.

    Raises:
        UserError: for an unknown command or option, and a value that is none.
        SystemExit: after ``--help``.
    """
    name, *words = argv or ["--help"]
    if name in ("-h", "--help"):
        show(_help())
        raise SystemExit(0)
    if name in ALIASES:
        print(f"solo-ood {name} is now called solo-ood {ALIASES[name]}.", file=sys.stderr)
        name = ALIASES[name]
    if words and f"{name} {words[0]}" in COMMANDS:
        name, words = f"{name} {words[0]}", words[1:]
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    command = COMMANDS[name]
    about = f"{command.help[0].upper()}{command.help[1:]}."
    prog = f"solo-ood {name}"
    return command, command_line.parse(command.options, words, prog, about, command.epilog)


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = (f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items())
    commands = "\n".join(lines)
    return f"usage: solo-ood COMMAND ...\n\n{commands}\n\nsolo-ood COMMAND --help says more."


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``solo-ood`` with ``argv``, by default the process's arguments."""
    if isinstance(sys.stdout, TextIOWrapper):  # what it cannot show must not end hours of work
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():  # the downloads of timm's weights, in a pipe or a file
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with user_errors():
        command, options = parse(sys.argv[1:] if argv is None else argv)
        command.run(options)
