"""Checks that a run has steps, and enough of them to flag something."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_ood.errors import UserError
from solo_ood.host.arguments import num_processes
from solo_ood.settings.schema import OODConfig, first_step, samples_before_first_flag
from solo_ood.training.enough_samples import check_neighbours, check_replays, check_samples
from solo_ood.training.preflight.data import count_samples


def check_steps(cfg: DictConfig, ood: OODConfig | None) -> None:
    """Raise ``UserError`` for a run that would train nothing or, with ``ood``, never flag anything.

    Args:
        cfg: the run's config.
        ood: our block; ``None`` for other methods.
    """
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if cfg.get(key) is not None and float(cfg[key]) == 0:
            raise UserError(
                key, expected="more than 0", got=cfg[key], remedy="With it, no step is taken."
            )
    epochs, steps = _most(cfg)
    if cfg.get("method") in ("dino", "dino_ood") and cfg.get("max_epochs") in (None, -1):
        raise UserError(
            "max_epochs",
            expected="a number: DINO's temperatures are a list with one for each epoch",
            got=cfg.get("max_epochs"),
            remedy="Set max_epochs=N, as large as you like beside max_time or max_steps.",
        )
    warmup = OmegaConf.select(cfg, (key := "method_kwargs.warmup_teacher_temperature_epochs")) or 0
    if warmup > epochs:
        raise UserError(
            key,
            expected=f"at most max_epochs = {epochs}",
            got=warmup,
            remedy=f"Set ++{key}={epochs} or less.",
        )
    batch_size = OmegaConf.select(cfg, "optimizer.batch_size")
    if batch_size is None:
        return
    batches = _batches(cfg, batch_size, ood)
    if ood is None or not ood.enabled or cfg.get("fast_dev_run"):
        return
    check_replays(ood, batch_size)
    samples = count_samples(cfg, at_most=ood.scorer.n_reference)
    if samples is not None:
        check_neighbours(ood, samples)
    accumulated = cfg.get("accumulate_grad_batches") or 1
    in_epoch = batches if batches == math.inf else math.ceil(batches / accumulated)
    first = first_step(ood, min(steps, in_epoch * epochs))
    total = min(steps * accumulated, batches * epochs)
    if total == math.inf:
        return
    rows = batch_size * num_processes(cfg)
    check_samples(ood, int(total - first * accumulated) * rows, rows, total)


def _batches(cfg: DictConfig, batch_size: int, ood: OODConfig | None) -> float:
    """Return the batches of an epoch in each process; infinite if unknown.

    Raises:
        UserError: if there is none.
    """
    processes = num_processes(cfg)
    limit: Any = cfg.get("overfit_batches") or cfg.get("limit_train_batches")
    share = limit if isinstance(limit, float) else 1.0
    samples = count_samples(
        cfg, at_most=math.ceil(_samples_that_suffice(ood, batch_size * processes) / share)
    )
    batches: float = math.inf
    if samples is not None:
        batches = math.ceil(samples / processes) // batch_size
    if batches == 0:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise UserError(
            "optimizer.batch_size",
            expected=f"a batch that the {samples} training samples fill{each}, since the host "
            "drops the last, short one",
            got=batch_size,
            remedy="Lower it, or give more data.",
        )
    limited = batches * share if isinstance(limit, float) else min(batches, limit or math.inf)
    if limited < 1:
        raise UserError(
            "limit_train_batches",
            expected=f"at least 1 of the {batches:.0f} batches of an epoch",
            got=limit,
            remedy="Raise it.",
        )
    return limited if limited == math.inf else int(limited)


def _samples_that_suffice(ood: OODConfig | None, rows: int) -> int:
    """Return how many training samples suffice for the checks, so that no more are counted."""
    if ood is None or not ood.enabled:
        return rows
    return math.ceil((samples_before_first_flag(ood) + rows) / (1 - ood.start)) + 2 * rows


def _most(cfg: DictConfig) -> tuple[float, float]:
    """Return how many epochs and optimizer steps end the run, as Lightning reads the config."""
    epochs, steps = cfg.get("max_epochs"), cfg.get("max_steps")
    steps = math.inf if steps in (None, -1) else steps
    if epochs is None:
        epochs = 1000 if steps == math.inf and cfg.get("max_time") is None else -1
    return math.inf if epochs == -1 else epochs, steps
