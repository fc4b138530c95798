"""The typed configuration of ``method_kwargs.ood``: every default, unit and range lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_ood.errors import UserError
from solo_ood.settings.block import block_size
from solo_ood.settings.checks import as_plain_dict, check_keys, check_values, conversion_error
from solo_ood.settings.choices import SCORERS, THRESHOLDS
from solo_ood.settings.field import setting
from solo_ood.settings.ratio import highest_ratio

PATH = "method_kwargs.ood"
# Limits far above what is of use: a typo must end in an error, not in swap or a fork bomb.
MOST_KEPT = 2**20  # rows, scores, indexes
MOST_WORKERS = 256
LARGEST_RIDGE = 1e6  # the scores are those of an infinite one; float32 still holds it
_END = 2**63  # of what fits into an int64 tensor


@dataclass
class ScorerConfig:
    """How rare a teacher embedding is; higher score = more out-of-distribution."""

    name: str = setting("knn", choices=SCORERS)
    n_reference: int = setting(
        1024,
        "stream samples remembered (knn: rows, others: effective number)",
        ge=2,
        le=MOST_KEPT,
    )
    min_samples: int = setting(
        256, "stream samples learnt before the first score is given", ge=2, le="n_reference"
    )
    k: int | None = setting(
        None,
        "knn: which neighbour, a sample's own earlier embeddings left out; null = max(2, 1 % of "
        "the reference)",
        ge=1,
        le="min_samples",
    )
    shrinkage: float = setting(0.1, "mahalanobis: weight of the scaled identity", ge=0, le=1)
    exemplars: list[Any] | None = setting(
        None,
        "exemplar: 5 to 20 samples (at most 1000) of the training data that show what matters, "
        "each a dataset index (int) or the end of an image's path (str)",
    )
    ridge: float = setting(
        0.02,
        "exemplar: added to the covariance, relative to its trace",
        gt=0,
        le=LARGEST_RIDGE,
    )
    exemplar_every: int = setting(
        50, "exemplar: batches between two embeddings of the exemplars", ge=1
    )
    normalize: bool = setting(True, "L2-normalise features first")
    feats: str = setting(
        "train",
        "teacher mode of the scored features:",
        {"train": "free", "eval": "+1 forward, if the teacher has BatchNorm or dropout"},
    )


@dataclass
class ThresholdConfig:
    """Which scores are out-of-distribution: the highest of every block of samples."""

    name: str = setting("quota", choices=THRESHOLDS)
    percentile: float = setting(0.95, "share of the stream that is *not* flagged", gt=0, lt=1)
    upper_percentile: float | None = setting(
        None,
        "share of the stream above which nothing is flagged, either: a band, without the highest "
        "scores; null = 1, no upper end",
        gt="percentile",
        lt=1,
    )
    n: int | None = setting(
        None,
        "fresh samples of a block; they are judged, and may be replayed, once it is full; null = "
        "as many as hold 100 flags, 100 / (1 - percentile)",
        ge=2,
        le=MOST_KEPT,
    )


@dataclass
class QueueConfig:
    """The FIFO of flagged dataset indexes."""

    capacity: int = setting(1024, "indexes held; the oldest leaves first", ge=1, le=MOST_KEPT)
    max_replays: int | None = setting(
        16, "replays after which an index leaves; null = no limit", ge=1
    )
    max_replays_per_run: int | None = setting(
        None,
        "replays of an index in the whole run, however often it enters; null = no limit",
        ge=1,
    )
    max_replays_per_epoch: float | None = setting(
        None,
        "replays of an index in any window of one epoch, whose batches / this it rests after each; "
        "null = no limit. With either cap fewer rows than mix.ratio are replayed while few indexes "
        "may be",
        gt=0,
        le=MOST_KEPT,
    )
    min_age: int = setting(0, "batches an index waits before its first replay", ge=0)
    min_distance: float | None = setting(
        None,
        "cosine distance to every queued sample, below which a flagged one does not enter; null = "
        "it always does",
        gt=0,
        le=2,
    )
    release: float | None = setting(
        None,
        "a re-scored replay leaves the queue when its score is not above this quantile of the "
        "stream; 0 = never for its score, threshold.percentile = about as soon as it is not "
        "flagged, null = the strictest level that sustains mix.ratio, see `release_level`",
        ge=0,
        lt=1,
    )
    store: str = setting(
        "indexes",
        "what is kept:",
        {
            "indexes": "fresh augmentations",
            "crops": "the pixels, kept on the CPU, for data without indexes",
        },
    )


@dataclass
class MixConfig:
    """How replayed samples enter the batch."""

    mode: str = setting(
        "replace",
        choices={
            "replace": "batch keeps its size; the fresh rows that leave it are drawn at each step",
            "append": "batch grows",
        },
    )
    ratio: float = setting(0.25, "replayed rows / batch size", ge=0, lt=1)
    ratio_end: float | None = setting(
        None,
        "the ratio at the run's end, to which it goes in a line from the step `start` on; null = "
        "mix.ratio",
        ge=0,
        lt=1,
    )
    num_workers: int | None = setting(
        None,
        "workers of the replay loader; null = ratio x the train loader's",
        ge=0,
        le=MOST_WORKERS,
    )


@dataclass
class OODConfig:
    """``method_kwargs.ood``: everything that ``dino_ood`` adds to DINO."""

    enabled: bool = setting(True, "false = stock DINO, bit for bit (but local crops count)")
    start: float = setting(0.2, "share of all optimizer steps before scoring starts", ge=0, lt=1)
    seed: int | None = setting(
        None,
        "of the replay draws, their augmentations, the rows that they replace and the random "
        "control; null = the run's own `seed` (what Lightning's seed_everything was called with "
        "before the model was built; 0 without it); a resumed run keeps that of its checkpoint",
        ge=0,
        lt=_END,
    )
    rare_classes: list[int] | None = setting(
        None,
        "class ids counted as rare in the logged precision and lift, for reporting only, never "
        "for training; null = the third of the classes with the fewest samples",
        ge=0,
        lt=_END,
    )
    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    mix: MixConfig = field(default_factory=MixConfig)


def parse(user: Mapping[str, Any] | DictConfig | None, batch_size: int | None = None) -> OODConfig:
    """Merge a user's block into the defaults and check every value.

    Args:
        user: the block ``method_kwargs.ood`` (nested mapping); ``None`` means all defaults.
        batch_size: fresh rows per process and step; the row counts are checked when it is given.

    Raises:
        UserError: for an unknown key or name (with the nearest valid one), a value of the wrong
            type, or one out of its range.
    """
    block = {} if user is None else as_plain_dict(user, OODConfig, PATH)
    check_keys(block, OODConfig, PATH)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(OODConfig), block)
        cfg: Any = OmegaConf.to_object(merged)
    except Exception as error:  # whatever OmegaConf raises for what it cannot convert
        raise conversion_error(block, OODConfig, PATH, error) from error
    check_values(cfg)
    if batch_size is not None and cfg.enabled:
        replay_rows(cfg, batch_size)
    return cfg


def replay_rows(cfg: OODConfig, batch_size: int, world_size: int = 1) -> int:
    """Return the replayed rows per process and step, m = round(ratio * batch_size), at most.

    Raises:
        UserError: for a batch of no rows, if m rounds to 0 though the ratio is not 0, if no fresh
            row is left, or if the queue cannot hold what one step replays on all processes.
    """
    if batch_size < 1:
        raise UserError(
            "batch size",
            expected="at least 1 sample per process and step",
            got=batch_size,
            remedy="Set optimizer.batch_size.",
        )
    ratio = highest_ratio(cfg.mix)
    rows = round(ratio * batch_size)
    if ratio > 0 and rows == 0:
        raise UserError(
            "ood.mix.ratio",
            expected=f"a ratio that gives at least 1 row of a batch of {batch_size}",
            got=f"{ratio} (0 rows)",
            remedy=f"Use at least {1 / batch_size:.3f}, a larger batch, or 0 for no replay.",
        )
    if cfg.mix.mode == "replace" and rows >= batch_size:
        raise UserError(
            "ood.mix.ratio",
            expected="at least 1 fresh row in the batch",
            got=f"{rows} replayed rows of {batch_size}",
            remedy="Lower ood.mix.ratio, or use ood.mix.mode=append.",
        )
    if cfg.queue.capacity < rows * world_size:
        raise UserError(
            "ood.queue.capacity",
            expected=f"at least the {rows * world_size} rows replayed per step",
            got=cfg.queue.capacity,
            remedy="Raise ood.queue.capacity or lower ood.mix.ratio.",
        )
    return rows


def first_step(cfg: OODConfig, total: float) -> int:
    """Return the optimizer step at which scoring starts.

    Args:
        cfg: the checked configuration.
        total: optimizer steps of the whole run; infinite, NaN or negative if unknown.

    Raises:
        UserError: if ``start`` is a share of a number of steps that is not known.
    """
    if cfg.start == 0:
        return 0
    if not 0 <= total < float("inf"):
        raise UserError(
            "ood.start",
            expected="0 for a run whose number of steps is not known before (max_epochs=-1, data "
            "without a length, or gradients accumulated by epoch)",
            got=cfg.start,
            remedy="Set method_kwargs.ood.start=0, or max_steps.",
        )
    return int(cfg.start * total)


def samples_before_first_flag(cfg: OODConfig) -> int:
    """Return how many fresh samples, after ``start``, come before one can be flagged."""
    threshold = cfg.threshold
    block = threshold.n or block_size(threshold.percentile, threshold.upper_percentile)
    return cfg.scorer.min_samples + block


def release_level(cfg: OODConfig) -> float:
    """Return the quantile of the stream at or below which a re-scored replay leaves the queue.

    Per fresh sample 1 - p (of a band u - p) are queued and ratio / (1 - ratio) replayed (ratio with
    ``append``), so each queued one must be replayed as often as their quotient on average. If every
    score were noise, a sample would survive 1 / level replays: the default level is where the two
    agree, and never above the threshold itself.
    """
    if cfg.queue.release is not None:
        return cfg.queue.release
    p, ratio = cfg.threshold.percentile, highest_ratio(cfg.mix)
    fresh = 1 - ratio if cfg.mix.mode == "replace" else 1.0
    rate = 1 - p if cfg.threshold.upper_percentile is None else cfg.threshold.upper_percentile - p
    return min(p, rate * fresh / ratio) if ratio > 0 else p
