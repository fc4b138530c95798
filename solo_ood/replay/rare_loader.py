"""Read queued samples again, through their dataset: with fresh augmentations."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data._utils import signal_handling

from solo_ood.errors import UserError, message
from solo_ood.replay.positions import Positions, path_of
from solo_ood.replay.tolerant_dataset import CollateWithReasons, TolerantDataset, probe
from solo_ood.selection.hashing import hash_int
from solo_ood.selection.rare_queue import RareQueue


class _QueueSampler(Sampler):
    """Batches of queued indexes: this process's share of a draw that all processes share.

    It ends when the queue holds too few. What was drawn and has not arrived (``unread``) comes
    first in the iteration after a worker died: a second draw on one process only would make the
    queues differ.
    """

    def __init__(self, queue: RareQueue, rows: int, rank: int, world_size: int) -> None:
        self.queue, self.rows, self.rank, self.world_size = queue, rows, rank, world_size
        self.unread: deque[list[int]] = deque()
        # Set when the queue ran dry; nothing more is drawn until the batches drawn so far arrived.
        self.ended = False

    def __iter__(self) -> Iterator[list[int]]:
        yield from list(self.unread)
        while self.draw():
            yield self.unread[-1]

    def draw(self) -> bool:
        """Draw one batch more, unless the queue ran dry."""
        wanted, shares = self.rows * self.world_size, self.world_size
        drawn = [] if self.ended else self.queue.draw(wanted, shares)
        self.ended = not drawn
        if drawn:
            rows = len(drawn) // shares  # fewer than wanted where a cap leaves fewer
            self.unread.append(drawn[self.rank * rows : (self.rank + 1) * rows])
        return bool(drawn)

    def can_draw(self) -> bool:
        """Whether the queue can give a batch."""
        return self.queue.can_draw(self.rows * self.world_size, self.world_size)


class RareLoader:
    """Replay through the training dataset: fresh augmentations, read by workers of its own.

    Every process draws the same indexes from its copy of the queue and reads its own share, so m
    is equal on all of them. It stays so when a file cannot be read or a worker dies: a sample i
    that could not be read is a row of NaN with the index ``-1 - i``, for the caller to replace and
    to tell the other processes, and a warning names it once. Workers are started again.

    Args:
        train_loader: the loader whose dataset, collation and pinning are used.
        queue: where the indexes are drawn.
        rows: m, rows per process and step.
        num_workers: ``None`` = the train loader's in proportion to m, at least one if it has any.
        rank: of this process.
        world_size: number of processes.
        seed: of the augmentations; they differ between processes, and after a resume.

    Raises:
        UserError: if the dataset cannot be read by index or does not return its index first.
    """

    def __init__(
        self,
        train_loader: DataLoader,
        queue: RareQueue,
        rows: int,
        num_workers: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        dataset: Any = getattr(train_loader, "dataset", None)  # DALI's loaders have none
        self._reader = TolerantDataset(dataset, *probe(dataset))
        _discard_missing(queue, self._reader.positions)
        if num_workers is None:
            share = rows / (train_loader.batch_size or rows)
            num_workers = math.ceil(train_loader.num_workers * share)
        self._sampler = _QueueSampler(queue, rows, rank, world_size)
        self._collate = CollateWithReasons(train_loader.collate_fn)
        self._arguments: dict[str, Any] = dict(
            batch_sampler=self._sampler,
            num_workers=num_workers,
            collate_fn=self._collate,
            pin_memory=train_loader.pin_memory,
            worker_init_fn=train_loader.worker_init_fn,
            # Of its own: the global RNG must not be used for the workers' seeds.
            generator=torch.Generator().manual_seed(hash_int(seed, rank, queue.step)),
            persistent_workers=num_workers > 0,
            # torch refuses a context without workers
            multiprocessing_context=train_loader.multiprocessing_context if num_workers else None,
        )
        self._loader = DataLoader(self._reader, **self._arguments)
        self._iterator: Iterator[Any] | None = None
        self._workers: Sequence[Any] = ()
        self._reported: set[int] = set()

    @property
    def rows(self) -> int:
        """Rows per process and step, of the batches that are drawn from now on."""
        return self._sampler.rows

    @rows.setter
    def rows(self, rows: int) -> None:
        self._sampler.rows = rows

    def next(self) -> Sequence[Any] | None:
        """Return ``[indexes (m,), [crops], targets (m,)]``, or ``None`` with too few queued."""
        waiting = self._sampler.unread or self._sampler.can_draw()
        if self._iterator is None and not waiting:
            return None  # starting the workers for nothing is not free
        fetched = self._fetch()
        if fetched is None:  # the queue ran dry; ask again at the next step
            self._iterator, self._sampler.ended = None, False
            return None
        self._sampler.unread.popleft()
        batch, reasons = fetched
        if reasons:
            self._report(batch[0], reasons)
        return batch

    def continue_from(self, previous: RareLoader) -> None:
        """Continue with what another loader of the same data has drawn and not returned."""
        self._sampler.unread.extend(previous._sampler.unread)

    def close(self) -> None:
        """End the workers now; otherwise a traceback that holds the iterator keeps them alive."""
        iterator, self._iterator, self._workers = self._iterator, None, ()
        shut_down = getattr(iterator, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()

    def _fetch(self) -> tuple[Any, list[str | UserError]] | None:
        """Return a batch and the reason of each blank row; restart workers that died."""
        deaths = 0
        while True:
            try:
                if self._iterator is None:
                    self._iterator = iter(self._loader)
                    self._workers = _silence_worker_deaths(self._iterator)
                return next(self._iterator, None)
            except Exception as error:
                if not self._lost_a_worker():
                    raise
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
            # Outside the handler: its traceback would keep the old iterator and its workers alive.
            deaths += 1
            self._iterator, self._workers = None, ()
            self._loader = DataLoader(self._reader, **self._arguments)
            warnings.warn(
                message(
                    "replay",
                    expected="its worker processes to run",
                    got=f"a replay worker that died ({reason})",
                    remedy="They are restarted and the run continues. The usual reason is too "
                    "little memory: lower ood.mix.num_workers or data.num_workers.",
                ),
                RuntimeWarning,
                stacklevel=3,
            )
            if deaths > 1 and self._sampler.unread:  # these rows may be the reason: leave them out
                self._sampler.draw()  # as the loader does when a batch arrives
                ended = "two workers that died while they read it or what they had prefetched"
                return self._collate(
                    [(self._reader.blank(index), ended) for index in self._sampler.unread[0]]
                )

    def _lost_a_worker(self) -> bool:
        """Whether a worker has died, or is dying: its pipes break first."""
        return bool(self._workers and wait([worker.sentinel for worker in self._workers], 5))

    def _report(self, indexes: torch.Tensor, reasons: list[str | UserError]) -> None:
        """Warn once of every sample that could not be read; raise if a wrong sample was read."""
        lost = [-1 - index for index in indexes.tolist() if index < 0]
        for index, reason in zip(lost, reasons):
            if isinstance(reason, UserError):
                raise reason
            if index in self._reported:
                continue
            self._reported.add(index)
            warnings.warn(
                message(
                    f"training sample {index}, "
                    f"{path_of(self._reader.dataset, index) or 'of no known file'}",
                    expected="to read it again",
                    got=reason,
                    remedy="The run goes on without it. Repair the file.",
                ),
                RuntimeWarning,
                stacklevel=3,
            )


def with_fresh_rows(
    mixed: Sequence[Any],
    batch: Sequence[Any],
    unreadable: torch.Tensor,
    order: torch.Tensor | None = None,
) -> Sequence[Any]:
    """Put fresh rows where replayed ones could not be read, without changing the indexes.

    With ``mix.mode=replace`` these are the rows that the replays would have replaced.

    Args:
        mixed: a batch that ends with m replayed rows; changed in place.
        batch: the fresh one that it was mixed from.
        unreadable: (m,) bool, on the host.
        order: of the fresh rows, on the host, as ``mix`` got it.
    """
    rows = len(unreadable)
    parts = [(mixed[2], batch[2])]
    parts += zip(*([x] if isinstance(x, torch.Tensor) else x for x in (mixed[1], batch[1])))
    for row, bad in enumerate(unreadable.tolist()):
        if bad:
            for new, fresh in parts:
                source = (row - rows) % len(fresh)
                new[row - rows].copy_(fresh[source if order is None else int(order[source])])
    return mixed


def drop_changed(queue: RareQueue, same_sample: Callable[[int], bool]) -> None:
    """Remove from the queue the indexes that now name other samples."""
    changed = [index for index in queue if not same_sample(index)]
    _discard(
        queue,
        changed,
        "the earlier training data",
        f"{len(changed)} that now name other samples",
        "They are dropped; scoring finds the rare samples of the new data.",
    )


def _discard_missing(queue: RareQueue, positions: Positions) -> None:
    """Remove from the queue the indexes that a smaller dataset does not have."""
    missing = [index for index in queue if index not in positions]
    _discard(
        queue,
        missing,
        f"the {len(positions)} training samples",
        f"{len(missing)} beyond them, the largest {max(missing, default=0)}",
        "They are dropped. If files were removed, the others may now name other samples; those "
        "leave when they are scored again and are not rare.",
    )


def _discard(queue: RareQueue, indexes: list[int], whose: str, got: str, remedy: str) -> None:
    if indexes:
        queue.discard(indexes)
        warnings.warn(
            message("queue", expected=f"indexes of {whose}", got=got, remedy=remedy),
            RuntimeWarning,
            stacklevel=4,
        )


def _silence_worker_deaths(iterator: Any) -> Sequence[Any]:
    """Return the worker processes of ``iterator``, whose deaths torch no longer reports.

    torch raises in its SIGCHLD handler, that is, at any line of the training. Without that,
    ``next`` finds out within 5 s.
    """
    if getattr(iterator, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    return getattr(iterator, "_workers", ())
