#!/usr/bin/env python3
"""Judge ``patches/solo-learn-main`` on a clean checkout of solo-learn's main branch.

    python tools/test_upstream.py --checkout PATH [--only suite docs]

The checkout is only read; everything happens in copies below ``--work``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from upstream.common import Result, Work, make_work, say, table
from upstream.docs import check_docs
from upstream.runs import check_scripts
from upstream.style import check_style
from upstream.suite import check_suite
from upstream.trees import make_trees, series

from solo_ood.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
STAGES: dict[str, Callable[[Work], list[Result]]] = {
    "apply": make_trees,  # in every call: the other stages need its trees, and it takes seconds
    "suite": check_suite,
    "style": check_style,
    "docs": check_docs,
    "scripts": check_scripts,
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkout",
        default=os.environ.get("SOLO_LEARN_CHECKOUT"),
        help="a git checkout of solo-learn (default: $SOLO_LEARN_CHECKOUT)",
    )
    parser.add_argument("--patches", type=Path, default=ROOT / "patches/solo-learn-main")
    parser.add_argument("--work", type=Path, default=ROOT / ".upstream", help="copies and logs")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE")
    return parser.parse_args(argv)


def perform(stage: str, work: Work) -> list[Result]:
    """Run a stage, print the details of its results, turn an error into a failed result."""
    start = time.monotonic()
    try:
        results = STAGES[stage](work)
    except (ValueError, RuntimeError) as error:
        results = [Result(stage, "no error", False, str(error))]
    for result in results:
        mark = {True: "pass", False: "FAIL", None: "info"}[result.ok]
        say(f"{stage}: {mark}: {result.check}" + (f" ({result.note})" if result.note else ""))
        for line in result.details:
            print(f"    {line}", flush=True)
    return [*results, Result(stage, "time", None, f"{time.monotonic() - start:.0f} s")]


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # As an exception it also ends the program that runs at the time, which has its own session.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if not args.checkout:
            raise UserError(
                "SOLO_LEARN_CHECKOUT",
                expected="the path of a solo-learn checkout",
                got="nothing",
                remedy="make test-upstream SOLO_LEARN_CHECKOUT=PATH",
            )
        checkout = Path(args.checkout).expanduser().resolve()
        work = make_work(args.work.resolve(), checkout, series(args.patches.resolve()))
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    results: list[Result] = []
    for stage in STAGES:
        if stage == "apply" or stage in args.only:
            results += perform(stage, work)
        if any(r.ok is False for r in results if r.stage == "apply"):
            break  # without the trees there is nothing to judge
    report = table(results)
    (work.root / "report.md").write_text(report + "\n")
    print(f"\n{report}")
    return int(any(result.ok is False for result in results))


if __name__ == "__main__":
    sys.exit(main())
