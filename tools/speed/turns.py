"""Real Trainers side by side in one process, of which exactly one takes steps at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Semaphore, Thread
from typing import Any

from lightning.pytorch import Callback, Trainer

from speed.setups import synchronise


@dataclass(frozen=True)
class Step:
    """What one optimisation step took, in seconds."""

    wall: float
    cpu: float  # of all threads of this process: what other programs do at the time is not in it


class Turns(Callback):
    """A Trainer in a thread of its own that takes steps only when told, and times them.

    A step is all between two starts of a batch: forward, backward, optimiser, teacher, what
    ``dino_ood`` adds, logs, and getting the next batch.

    Args:
        model, loader: what is trained.
        device: "cpu" or "cuda".
        steps: that will be asked for.
        trainer_kwargs: further arguments of the Trainer.
    """

    def __init__(
        self, model: Any, loader: Any, device: str, steps: int, **trainer_kwargs: Any
    ) -> None:
        self.model, self.loader, self.device = model, loader, device
        self._options: dict[str, Any] = {
            "accelerator": "gpu" if device == "cuda" else "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 100,
            "max_steps": steps + 1,  # the last one only ends the run
            **trainer_kwargs,
        }
        self._steps: list[Step] = []
        self._left = 0
        self._started: tuple[float, float] | None = None
        self._go, self._done = Semaphore(0), Semaphore(0)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._fit, daemon=True)
        self._thread.start()
        self._wait()  # up to the first batch

    def take(self, steps: int = 1) -> list[Step]:
        """Take ``steps`` steps, while all other Trainers wait."""
        self._steps, self._left = [], steps
        self._go.release()
        self._wait()
        return self._steps

    def close(self) -> None:
        """End the run as Lightning does, with the steps that are left."""
        self._left = self._options["max_steps"]
        self._go.release()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _wait(self) -> None:
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def _fit(self) -> None:
        try:
            trainer = Trainer(callbacks=[self], **self._options)
            trainer.fit(self.model, self.loader)
        except BaseException as error:  # for the thread that waits
            self._error = error
        finally:
            self._done.release()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        synchronise(self.device)
        wall, cpu = time.perf_counter(), time.process_time()
        if self._started is not None:
            self._steps.append(Step(wall - self._started[0], cpu - self._started[1]))
        if self._left == 0:
            self._done.release()
            self._go.acquire()
        self._left -= 1
        self._started = time.perf_counter(), time.process_time()


def interleaved(
    arms: dict[str, Turns],
    rounds: int,
    block: int,
    skip: int,
    order: Callable[[list[str]], list[str]],
    progress: Callable[[int], None],
) -> dict[str, list[list[Step]]]:
    """Let every arm take ``block`` steps in each round, in a new order; drop the first ones.

    Args:
        arms: what takes turns.
        rounds: times that every arm has its turn.
        block: steps of one turn. More than 1 where workers read ahead: while the others have their
            turn they would read ahead for free.
        skip: steps at the start of a turn that do not count.
        order: draws the order of a round.
        progress: told the number of the round.
    """
    taken: dict[str, list[list[Step]]] = {name: [] for name in arms}
    for turn in range(rounds):
        for name in order(list(arms)):
            taken[name].append(arms[name].take(block)[skip:])
        progress(turn + 1)
    return taken
