"""Two gloo processes: the same detector, shared replays, `exemplar`, short last batches."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from repository import HELPERS, ROOT

EXEMPLAR = (
    "ood=exemplar",
    "method_kwargs.ood.scorer.exemplars=[3,50,400]",
    "++method_kwargs.ood.scorer.exemplar_every=10",
)


def test_two_processes_agree_and_share_the_replays(tmp_path, registered, tiny):
    ood = ("++method_kwargs.ood.queue.release=0", "++method_kwargs.ood.mix.ratio=0.5")
    overrides = [*tiny, "optimizer.batch_size=8", *ood, *EXEMPLAR]
    done = subprocess.run(
        [sys.executable, HELPERS / "ddp_run.py", ROOT / "configs", tmp_path, *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    replayed = [state.pop("replayed") for state in (first, second)]

    assert first.keys() == second.keys()
    for key, value in first.items():
        if key == "settings":  # names and numbers
            assert value == second[key]
        else:
            torch.testing.assert_close(value, second[key], rtol=0, atol=0, equal_nan=True)
    assert first["counts"]["judged"] > 100
    # 2 epochs of 20 steps feed both processes' 8 rows, less 4 replays each; 3 rows end an epoch
    assert first["rows"] == second["rows"] == [*[8] * 19, 3] * 2
    assert 2 * 40 * 4 <= first["scorer"]["_extra_state"]["n_fed"] <= 2 * 40 * 8
    # Equal numbers on both, at the same steps, and never the same sample in one step.
    drawn = [len(one) for one in replayed[0]]
    assert drawn == [len(one) for one in replayed[1]] and set(drawn) == {0, 4}
    assert drawn.count(4) > 10
    assert not any(set(a) & set(b) for a, b in zip(*replayed))
    # A batch that has no row to spare is trained without a replay; so is it on both.
    assert drawn[19] == drawn[39] == 0 and drawn[38] == 4
