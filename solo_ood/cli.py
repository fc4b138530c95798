"""The console command ``solo-ood``: evaluate and report on a run, export it, measure detectors."""

# What a command needs is imported when it runs: `--help` and errors of spelling take no time.

from __future__ import annotations

import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from solo_ood.detection.options import add_arguments
from solo_ood.errors import UserError
from solo_ood.evaluation.options import add_arguments as add_evaluate_arguments
from solo_ood.text import show, user_path


@contextmanager
def user_errors() -> Iterator[None]:
    """Show a ``UserError`` as one line; everything else keeps its trace."""
    try:
        yield
    except UserError as error:
        raise SystemExit(f"Error: {error}") from None


def _export(args: Namespace) -> None:
    from solo_ood.export import export

    show(f"wrote {export(args.checkpoint, args.out, args.weights)}")


def _report(args: Namespace) -> None:
    from solo_ood.report import report

    show(report(args.run, args.out, args.metrics))


def _evaluate(args: Namespace) -> None:
    from solo_ood.evaluation.evaluate import evaluate
    from solo_ood.evaluation.options import options_of

    evaluate(options_of(args, shlex.join(["solo-ood", *sys.argv[1:]])), show)


def _detect(args: Namespace) -> None:
    from solo_ood.detection.options import options_of
    from solo_ood.detection.run import detect

    detect(options_of(args, shlex.join(["solo-ood", *sys.argv[1:]])), show)


def parser() -> ArgumentParser:
    """Build the command line."""
    top = ArgumentParser(prog="solo-ood", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "export", help="write a checkpoint that stock solo-learn evaluates without this package"
    )
    command.add_argument(
        "checkpoint", type=user_path, help="a .ckpt of dino_ood, args.json beside it, or its folder"
    )
    command.add_argument(
        "out", type=user_path, help="folder to write the checkpoint and args.json to"
    )
    command.add_argument("--weights", choices=["teacher", "student"], default="teacher")
    command.set_defaults(run_command=_export)

    command = commands.add_parser("report", help="summary and pictures of a dino_ood run")
    command.add_argument("run", type=user_path, help="folder with the .ckpt and its args.json")
    command.add_argument(
        "--out", type=user_path, help="folder for the pictures; default: RUN/report"
    )
    command.add_argument("--metrics", type=user_path, help="the run's metrics.csv; default: RUN's")
    command.set_defaults(run_command=_report)

    command = commands.add_parser(
        "evaluate", help="k-NN and linear accuracy of a run, for Many, Medium and Few classes"
    )
    add_evaluate_arguments(command)
    command.set_defaults(run_command=_evaluate)

    command = commands.add_parser(
        "detect", help="measure how well detectors find the rare images of labelled data"
    )
    add_arguments(command)
    command.set_defaults(run_command=_detect)
    return top


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``solo-ood`` with ``argv``, by default the process's arguments."""
    args = parser().parse_args(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, TextIOWrapper):  # what it cannot show must not end hours of work
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():  # the downloads of timm's weights, in a pipe or a file
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with user_errors():
        args.run_command(args)
