"""The typed configuration of ``method_kwargs.ood``: every default, unit and range lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_ood.errors import message, unknown_name

SCORERS = ("knn", "mahalanobis", "exemplar", "random", "oracle")
THRESHOLDS = ("fixed", "window", "tracking")


@dataclass
class ScorerConfig:
    """How rare a teacher embedding is; higher score = more out-of-distribution."""

    # knn | mahalanobis | exemplar (towards given samples) | random (control) | oracle (control,
    # needs labels)
    name: str = "knn"
    n_reference: int = 1024  # stream samples remembered (knn: rows; others: effective number)
    min_samples: int = 256  # stream samples learnt before the first score is given
    k: int | None = None  # knn: which neighbour; null = max(2, 1 % of the reference)
    shrinkage: float = 0.1  # mahalanobis: weight in [0, 1] of the scaled identity
    # exemplar: 5 to 20 samples of the training data that show what matters, each a dataset index
    # (int) or the end of an image's path (str)
    exemplars: list[Any] | None = None
    ridge: float = 0.02  # exemplar: > 0, added to the covariance, relative to its trace
    exemplar_every: int = 50  # exemplar: training steps between two embeddings of the exemplars
    normalize: bool = True  # L2-normalise features first
    # teacher mode of the scored features: train (free) | eval (+1 forward, if the teacher has
    # BatchNorm or dropout)
    feats: str = "train"


@dataclass
class ThresholdConfig:
    """Which scores are out-of-distribution: ``is_ood == (ood_score > threshold)``."""

    # fixed (first n scores) | window (last n) | tracking (exact long-run rate)
    name: str = "tracking"
    percentile: float = 0.95  # in (0, 1): share of the stream that is *not* flagged
    n: int = 1024  # scores the quantile is taken from
    min_samples: int = 256  # scores seen before the first flag; fixed waits for all n
    eta: float = 0.005  # tracking: step of the level per sample; larger = faster, noisier


@dataclass
class QueueConfig:
    """The FIFO of flagged dataset indexes."""

    capacity: int = 1024  # indexes held; the oldest leaves first
    max_replays: int | None = 16  # replays after which an index leaves; null = no limit
    min_age: int = 0  # training steps an index waits before its first replay
    # A re-scored replay leaves the queue when its score is not above this quantile of the stream,
    # in [0, 1): 0 = never for its score, threshold.percentile = about as soon as it is not flagged.
    # null = the strictest level that sustains mix.ratio, see `release_level`.
    release: float | None = None
    # indexes: fresh augmentations; crops: the pixels, kept on the CPU, for data without indexes.
    store: str = "indexes"


@dataclass
class MixConfig:
    """How replayed samples enter the batch."""

    mode: str = "replace"  # replace (batch keeps its size) | append (batch grows)
    ratio: float = 0.25  # replayed rows / batch size, in [0, 1)
    # workers of the replay loader; null = ratio x the train loader's
    num_workers: int | None = None


@dataclass
class OODConfig:
    """``method_kwargs.ood``: everything that ``dino_ood`` adds to DINO."""

    enabled: bool = True  # false = stock DINO, bit for bit (but local crops count)
    start: float = 0.2  # share of all training steps before scoring starts, in [0, 1)
    seed: int = 0  # of the replay draws and the random control
    # class ids counted as rare in the logged precision and lift; null = the third of the classes
    # with the fewest samples. Used for reporting only, never for training.
    rare_classes: list[int] | None = None
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
        ValueError: for an unknown key or name (with the nearest valid one), a value of the wrong
            type, or one out of its range.
    """
    block: Any = OmegaConf.to_container(user, resolve=True) if OmegaConf.is_config(user) else user
    block = {} if block is None else block
    if not isinstance(block, Mapping):
        raise ValueError(
            message(
                "method_kwargs.ood",
                expected="a mapping",
                got=repr(block),
                remedy="Write `ood:` with its keys below it, or `ood: {}` for the defaults.",
            )
        )
    _check_keys(block, OODConfig, "method_kwargs.ood")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(OODConfig), dict(block))
        cfg: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"method_kwargs.ood: {str(error).splitlines()[0]}") from error
    _check_values(cfg)
    if batch_size is not None and cfg.enabled:
        replay_rows(cfg, batch_size)
    return cfg


def replay_rows(cfg: OODConfig, batch_size: int, world_size: int = 1) -> int:
    """Return the replayed rows per process and step, m = round(ratio * batch_size).

    Raises:
        ValueError: if m rounds to 0 though the ratio is not 0, if no fresh row is left, or if the
            queue cannot hold the rows that one step replays on all processes.
    """
    rows = round(cfg.mix.ratio * batch_size)
    if cfg.mix.ratio > 0 and rows == 0:
        raise ValueError(
            message(
                "ood.mix.ratio",
                expected=f"a ratio that gives at least 1 row of a batch of {batch_size}",
                got=f"{cfg.mix.ratio} (0 rows)",
                remedy=f"Use at least {1 / batch_size:.3f}, a larger batch, or 0 for no replay.",
            )
        )
    if cfg.mix.mode == "replace" and rows >= batch_size:
        raise ValueError(
            message(
                "ood.mix.ratio",
                expected="at least 1 fresh row in the batch",
                got=f"{rows} replayed rows of {batch_size}",
                remedy="Lower ood.mix.ratio, or use ood.mix.mode=append.",
            )
        )
    if cfg.queue.capacity < rows * world_size:
        raise ValueError(
            message(
                "ood.queue.capacity",
                expected=f"at least the {rows * world_size} rows replayed per step",
                got=cfg.queue.capacity,
                remedy="Raise ood.queue.capacity or lower ood.mix.ratio.",
            )
        )
    return rows


def release_level(cfg: OODConfig) -> float:
    """Return the quantile of the stream at or below which a re-scored replay leaves the queue.

    Per fresh sample 1 - p are queued and ratio / (1 - ratio) replayed (ratio with ``append``), so
    each queued one must be replayed as often as their quotient on average. If every score were
    noise, a sample would survive 1 / level replays: the default level is where the two agree, and
    never above the threshold itself.
    """
    if cfg.queue.release is not None:
        return cfg.queue.release
    p, ratio = cfg.threshold.percentile, cfg.mix.ratio
    fresh = 1 - ratio if cfg.mix.mode == "replace" else 1.0
    return min(p, (1 - p) * fresh / ratio) if ratio > 0 else p


def _check_keys(user: Mapping[str, Any], schema: Any, path: str) -> None:
    """Raise for a key that the schema does not have, anywhere below ``path``."""
    known = {f.name: f for f in fields(schema)}
    for key, value in user.items():
        if key not in known:
            raise ValueError(unknown_name(f"key in {path}", str(key), known))
        factory = known[key].default_factory
        if is_dataclass(factory) and isinstance(value, Mapping):
            _check_keys(value, factory, f"{path}.{key}")


def _check_values(cfg: OODConfig) -> None:
    choices = {
        "scorer.name": (cfg.scorer.name, SCORERS),
        "scorer.feats": (cfg.scorer.feats, ("train", "eval")),
        "threshold.name": (cfg.threshold.name, THRESHOLDS),
        "queue.store": (cfg.queue.store, ("indexes", "crops")),
        "mix.mode": (cfg.mix.mode, ("replace", "append")),
    }
    for key, (choice, valid) in choices.items():
        if choice not in valid:
            raise ValueError(unknown_name(f"ood.{key}", choice, valid))
    release = cfg.queue.release
    max_replays, k = cfg.queue.max_replays, cfg.scorer.k
    workers, n_reference = cfg.mix.num_workers, cfg.scorer.n_reference
    p = cfg.threshold.percentile
    ranges: dict[str, tuple[Any, bool, str]] = {
        "start": (cfg.start, 0 <= cfg.start < 1, "a share in [0, 1)"),
        "scorer.n_reference": (n_reference, n_reference >= 2, "at least 2 samples"),
        "scorer.min_samples": (
            cfg.scorer.min_samples,
            2 <= cfg.scorer.min_samples <= n_reference,
            f"2 to scorer.n_reference = {n_reference} samples",
        ),
        "scorer.k": (
            k,
            k is None or 1 <= k <= cfg.scorer.min_samples,
            f"null or 1 to scorer.min_samples = {cfg.scorer.min_samples}",
        ),
        "scorer.shrinkage": (
            cfg.scorer.shrinkage,
            0 <= cfg.scorer.shrinkage <= 1,
            "a weight in [0, 1]",
        ),
        "scorer.ridge": (cfg.scorer.ridge, cfg.scorer.ridge > 0, "a number above 0"),
        "scorer.exemplar_every": (
            cfg.scorer.exemplar_every,
            cfg.scorer.exemplar_every >= 1,
            "at least 1 step",
        ),
        "threshold.percentile": (p, 0 < p < 1, "a fraction in (0, 1), such as 0.95"),
        "threshold.n": (cfg.threshold.n, cfg.threshold.n >= 2, "at least 2 scores"),
        "threshold.min_samples": (
            cfg.threshold.min_samples,
            1 <= cfg.threshold.min_samples <= cfg.threshold.n,
            f"1 to threshold.n = {cfg.threshold.n} scores",
        ),
        "threshold.eta": (cfg.threshold.eta, 0 < cfg.threshold.eta <= 1, "a step in (0, 1]"),
        "queue.capacity": (cfg.queue.capacity, cfg.queue.capacity >= 1, "at least 1 index"),
        "queue.max_replays": (
            max_replays,
            max_replays is None or max_replays >= 1,
            "null or at least 1",
        ),
        "queue.min_age": (cfg.queue.min_age, cfg.queue.min_age >= 0, "0 or more steps"),
        "queue.release": (release, release is None or 0 <= release < 1, "null or in [0, 1)"),
        "mix.ratio": (cfg.mix.ratio, 0 <= cfg.mix.ratio < 1, "a ratio in [0, 1)"),
        "mix.num_workers": (workers, workers is None or workers >= 0, "null or 0 or more"),
    }
    for key, (value, valid_value, expected) in ranges.items():
        if not valid_value:
            raise ValueError(
                message(
                    f"ood.{key}",
                    expected=expected,
                    got=value,
                    remedy=f"Set method_kwargs.ood.{key} accordingly.",
                )
            )
    _check_exemplars(cfg.scorer)


def _check_exemplars(cfg: ScorerConfig) -> None:
    given, wanted = cfg.exemplars, cfg.name == "exemplar"
    ways = 'such as "method_kwargs.ood.scorer.exemplars=[12,57,101]"'
    known = all(isinstance(x, (int, str)) and not isinstance(x, bool) for x in given or [])
    for key, valid, expected, got, remedy in (
        (
            "exemplars",
            wanted or given is None,
            f"null with ood.scorer.name={cfg.name}",
            given,
            "Remove them, or set method_kwargs.ood.scorer.name=exemplar.",
        ),
        (
            "exemplars",
            given or not wanted,
            "at least 1 sample that shows what matters",
            given,
            f"Give 5 to 20 dataset indexes or image paths, {ways}.",
        ),
        (
            "exemplars",
            known,
            "dataset indexes (int) and image paths (str)",
            given,
            f"Give each as one of the two, {ways}.",
        ),
        (
            "feats",
            cfg.feats == "eval" or not wanted,
            "eval with ood.scorer.name=exemplar, since BatchNorm needs a larger batch",
            cfg.feats,
            "Set method_kwargs.ood.scorer.feats=eval.",
        ),
    ):
        if not valid:
            raise ValueError(
                message(f"ood.scorer.{key}", expected=expected, got=got, remedy=remedy)
            )
