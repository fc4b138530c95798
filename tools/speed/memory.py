"""Peak memory of every arm, each in a process of its own.

Run as ``python -m speed.memory SETUP ARM DEVICE PICTURES STEPS``, it prints the bytes.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from speed.children import printed_by


def peaks(
    setup: str, arms: Sequence[str], device: str, pictures: Path, steps: int
) -> dict[str, int]:
    """Return the bytes that each arm adds at its peak to a process that has the data and torch."""
    return {
        arm: int(printed_by("speed.memory", setup, arm, device, pictures, steps).split()[-1])
        for arm in arms
    }


def _peak(device: str) -> int:
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would begin with the size of the process that started this one
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    from lightning.pytorch import seed_everything

    from solo_ood.plugin import register
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
    run = Turns(build_model(cfg), loader, device, int(steps))
    run.take(int(steps))
    print(_peak(device) - before)
    run.close()


if __name__ == "__main__":
    main()
