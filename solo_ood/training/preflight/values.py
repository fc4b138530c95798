"""Checks single settings of the host: whether they are there, of the right type and in range."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_ood.errors import UserError, short_repr

_ABSENT = object()

# Keys without which the host does not build a run; null is no value of them, either.
_REQUIRED = (
    "backbone.name",
    "data.dataset",
    "data.num_workers",
    "optimizer.name",
    "optimizer.batch_size",
    "optimizer.lr",
    "scheduler.name",
)
# key: (smallest value, whether null is one)
_WHOLE_NUMBERS = {
    "max_epochs": (-1, True),
    "max_steps": (-1, False),
    "num_nodes": (1, False),
    "accumulate_grad_batches": (1, True),
    "optimizer.batch_size": (1, False),
    "data.num_workers": (0, False),
    "checkpoint.frequency": (1, False),
    "check_val_every_n_epoch": (1, True),
    "log_every_n_steps": (0, True),
}
# Other methods have lists of prototypes.
_OF_DINO = {
    "method_kwargs.num_prototypes": (1, False),
    "method_kwargs.proj_hidden_dim": (1, False),
    "method_kwargs.proj_output_dim": (1, False),
    "method_kwargs.freeze_last_layer": (0, False),
    "method_kwargs.warmup_teacher_temperature_epochs": (0, False),
}
# key: the interval that it has to be in
_NUMBERS = {
    "optimizer.lr": (0.0, math.inf),
    "optimizer.classifier_lr": (0.0, math.inf),
    "optimizer.weight_decay": (0.0, math.inf),
    "scheduler.warmup_epochs": (0.0, math.inf),
    "momentum.base_tau": (0.0, 1.0),
    "momentum.final_tau": (0.0, 1.0),
    "limit_train_batches": (0.0, math.inf),
    "limit_val_batches": (0.0, math.inf),
    "overfit_batches": (0.0, math.inf),
    "data.fraction": (-1.0, 1.0),
    "seed": (0.0, 2.0**32 - 1),
}
# YAML and Hydra take `no` and `off` for texts, which are true.
_SWITCHES = (
    "auto_resume.enabled",
    "checkpoint.enabled",
    "data.no_labels",
    "knn_eval.enabled",
    "momentum.classifier",
    "sync_batchnorm",
    "wandb.enabled",
)


def check_values(cfg: DictConfig) -> None:
    """Raise ``UserError`` for a value that is missing, of the wrong type, or out of its range."""
    whole = {**_WHOLE_NUMBERS, **(_OF_DINO if cfg.get("method") in ("dino", "dino_ood") else {})}
    for key, (smallest, may_be_null) in whole.items():
        _check_whole_number(cfg, key, smallest, may_be_null)
    for key, (low, high) in _NUMBERS.items():
        value = _value(cfg, key)
        if value in (_ABSENT, None) or _is_number(value, low, high):
            continue
        between = f" of at least {low:g}" if high == math.inf else f" from {low:g} to {high:.10g}"
        raise _wrong(key, f"a number{between}", value, "NUMBER")
    for key in _SWITCHES:
        value = _value(cfg, key)
        if value not in (_ABSENT, None) and not isinstance(value, bool):
            raise _wrong(key, "true or false", value, "true or false")
    for key in ("data.train_path", "data.val_path"):
        value = _value(cfg, key)
        if value not in (_ABSENT, None) and not isinstance(value, str):
            raise UserError(
                key,
                expected="a path",
                got=short_repr(value),
                remedy=f"Write {key}=./{value} for a folder of this name.",
            )
    if cfg.get("method") is not None:  # linear evaluation reads some of them from a checkpoint
        _check_pipelines(cfg)
        for key in _REQUIRED:
            if _value(cfg, key) in (_ABSENT, None):
                raise _wrong(key, "a value", None, "VALUE")


def _value(cfg: DictConfig, key: str) -> Any:
    """Return the value of a dotted key, plain; ``_ABSENT`` if it is not there or "???"."""
    node: Any = cfg
    for part in key.split("."):
        if not OmegaConf.is_dict(node) or part not in node or OmegaConf.is_missing(node, part):
            return _ABSENT
        node = node[part]
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def _wrong(key: str, expected: str, got: Any, how: str) -> UserError:
    got = "null" if got is None else short_repr(got)
    return UserError(key, expected=expected, got=got, remedy=f"Set {key}={how}.")


def _check_whole_number(cfg: DictConfig, key: str, smallest: int, may_be_null: bool) -> None:
    value = _value(cfg, key)
    if value is _ABSENT or (value is None and may_be_null):
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
        raise _wrong(key, f"a whole number of at least {smallest}", value, "NUMBER")


def _is_number(value: Any, low: float, high: float) -> bool:
    if isinstance(value, bool):
        return False
    try:
        number = float(value)  # YAML takes 1e-4 for a text; the host does not
    except (TypeError, ValueError):
        return False
    return low <= number <= high and number != math.inf


def _check_pipelines(cfg: DictConfig) -> None:
    """Every pipeline of ``augmentations`` has a crop size, and a number of crops of it."""
    pipelines = cfg.get("augmentations")
    if not OmegaConf.is_list(pipelines) or len(pipelines) == 0:
        raise UserError(
            "augmentations",
            expected="a list of pipelines, that of the global crops first",
            got=short_repr(pipelines),
            remedy="Copy the block of configs/dino_ood.yaml.",
        )
    for number, pipeline in enumerate(pipelines):
        for key, smallest in (("crop_size", 1), ("num_crops", 0)):
            value = pipeline.get(key) if OmegaConf.is_dict(pipeline) else None
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                expected = f"a whole number of at least {smallest}"
                raise _wrong(f"augmentations.{number}.{key}", expected, value, "NUMBER")
