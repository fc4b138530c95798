"""Peak memory of every arm, and how often a step waits for the GPU, in a process of its own.

Run as ``python -m speed.memory SETUP ARM DEVICE PICTURES STEPS``, it prints the bytes and, of one
step, the synchronisations that torch reports (0 without a GPU).
"""

from __future__ import annotations

import resource
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speed.children import printed_by


def peaks(
    setup: str, arms: Sequence[str], device: str, pictures: Path, steps: int
) -> dict[str, tuple[int, float]]:
    """Return of each arm the bytes that it adds, and the synchronisations of a step.

    The bytes are those at the peak, beyond those of a process that has the data and torch.
    """
    found = {}
    for arm in arms:
        printed = printed_by("speed.memory", setup, arm, device, pictures, steps).split()
        found[arm] = int(printed[-2]), float(printed[-1])
    return found


def _peak(device: str) -> int:
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would begin with the size of the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _synchronisations(run: Any, steps: int) -> float:
    """Return how often torch made the host wait in a step; Lightning's own are among them."""
    import torch

    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.take(steps)
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught) / steps


def main() -> None:
    from lightning.pytorch import seed_everything

    from solo_ood.training.plugin import register
    from speed.setups import SETUPS, build_model, config, decoded_loader
    from speed.turns import Turns

    name, arm, device, pictures, steps = sys.argv[1:]
    register()
    seed_everything(0, verbose=False)
    setup = SETUPS[name]
    extra = ["++method_kwargs.ood.mix.num_workers=0"]
    cfg = config(setup, arm, Path(pictures), setup.batch_size(device), 0, extra)
    loader = decoded_loader(cfg, 2, device)
    before = _peak(device)
    run = Turns(build_model(cfg), loader, device, 2 * int(steps), precision=setup.precision)
    run.take(int(steps))
    peak = _peak(device) - before
    waits = _synchronisations(run, int(steps)) if device == "cuda" else 0.0
    run.close()  # ends with a summary
    print(peak, waits)


if __name__ == "__main__":
    main()
