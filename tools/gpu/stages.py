"""The stages of the kit: tests, memory, bench, study.

    tests    every test that needs a CUDA device
    memory   peak memory, and how often a step waits for the GPU: stock DINO, off, knn
    bench    time of a step of resnet50 and vit_small at 224 pixels with 2 + 6 crops, arms in turns
    study    the arms on CIFAR-10-LT, side by side

Stages with a comma between them run at the same time (``tests,memory bench``): for those
whose time is not measured. Each writes its log, and its tables as JSON, to ``--out``; the last
lines name what failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SETUPS = [
    f"{name} at 224, 6 x 96, batch {batch}, bf16"
    for name, batch in (("resnet50", 64), ("vit_small", 64), ("vit_small", 256))
]


def commands(out: Path, data: Path, quick: bool) -> dict[str, list[object]]:
    """Return the command of each stage."""
    bench = [PROJECT / "tools" / "bench.py", "--out"]
    arms = ["--arms", "off"] if quick else ["--arms", "stock again", "off", "knn", "exemplar"]
    small: list[object] = ["--quick"] if quick else []
    networks = ["--setups", "tiny"] if quick else ["--setups", *SETUPS]
    study = [Path(__file__).with_name("study.py"), "--data", data, *small]
    return {
        "tests": [
            "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--durations=10",
            f"--junitxml={out / 'tests.xml'}", "tests/host",
        ],
        "memory": [*bench, out / "memory", "--sections", "memory", *small, *networks[:3]],
        "bench": [
            *bench, out / "bench", "--sections", "steps", "--rounds", 24, *small, *networks, *arms,
        ],
        "study": [*study, "--out", out / "study"],
    }  # fmt: skip


def run(name: str, command: list[object], out: Path, limit: float) -> str:
    """Run one stage and return a line of what became of it; its output goes to a log."""
    log, started = out / f"{name}.log", time.monotonic()
    path = os.pathsep.join([str(PROJECT / "tools"), os.environ.get("PYTHONPATH", "")])
    with log.open("w") as file:
        try:
            code = subprocess.run(
                [sys.executable, *map(str, command)],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": path},
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=limit,
            ).returncode
            state = "ok" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            state = "stopped at the limit"
    print(f"\n===== {name}\n{log.read_text()[-2500:]}", flush=True)
    return f"{name}: {state}, {time.monotonic() - started:.0f} s"


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", help="names, with commas what runs at the same time")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a tar of an ImageFolder")
    parser.add_argument("--limit", type=float, default=600, help="seconds for everything")
    parser.add_argument("--quick", action="store_true", help="tiny, for a try without a GPU")
    parser.add_argument(
        "--more", nargs=REMAINDER, default=[], help="options of the last stage's program"
    )
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.limit
    known = commands(args.out, args.data.resolve(), args.quick)
    groups = [group.split(",") for group in args.stages]
    unknown = sorted({name for group in groups for name in group} - known.keys())
    if unknown:
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(known)}")
    known[groups[-1][-1]] += args.more
    lines: list[str] = []
    for group in groups:
        left = end - time.monotonic()
        with ThreadPoolExecutor(len(group)) as pool:
            jobs = [pool.submit(run, name, known[name], args.out, left) for name in group]
            lines += [job.result() for job in jobs]
    print("\n".join(["", *lines]))
    sys.exit(any(": ok" not in line for line in lines))


if __name__ == "__main__":
    main()
