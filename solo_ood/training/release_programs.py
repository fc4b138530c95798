"""Pre-training and linear evaluation on solo-learn 1.0.2, whose release has no scripts."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir, initialize_config_module
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from solo.methods import METHODS
from solo.methods.linear import LinearModel
from torch import Tensor
from torch.utils.data import DataLoader

from solo_ood.console import on_terminal
from solo_ood.data.image_folder import image_folder
from solo_ood.embedding.weights import SAME_RUN, load_file
from solo_ood.errors import UserError, unknown_name
from solo_ood.evaluation.data import describe_data, facts
from solo_ood.evaluation.groups import grouped_accuracy, groups_of
from solo_ood.files.checkpoint import load
from solo_ood.files.output import check_writable
from solo_ood.host import networks as host_networks
from solo_ood.host import release
from solo_ood.host.arguments import logger_names, num_processes
from solo_ood.host.backbones import read_trained
from solo_ood.host.run_args import read_args, require_file, settings_folder
from solo_ood.host.run_folder import RunFiles, find_run
from solo_ood.training import preflight
from solo_ood.training.callbacks import RequireSteps
from solo_ood.training.loggers import with_loggers
from solo_ood.training.plugin import register
from solo_ood.training.preflight.data import check_labelled_folder


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Return a training config as ``main_pretrain.py --config-name NAME OVERRIDES...`` does.

    Args:
        name: of a config of this package, or the path of a YAML.
        overrides: Hydra's.
    """
    register()
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        where: Any = initialize_config_dir(str(path.resolve().parent), version_base="1.2")
        overrides = ["hydra.searchpath=[pkg://solo_ood.configs]", *overrides]
    else:
        where = initialize_config_module("solo_ood.configs", version_base="1.2")
    with where:
        return compose(path.stem, list(overrides))


def pretrain(cfg: DictConfig, callbacks: Sequence[Callback] = ()) -> Path:
    """Train ``cfg.method`` and return the run's folder (checkpoint, args.json, metrics.csv).

    Args:
        cfg: the config.
        callbacks: of Lightning, beside the run's own.
    """
    OmegaConf.set_struct(cfg, False)
    preflight.fill_in_paths(cfg)
    preflight.check(cfg)
    seed_everything(cfg.get("seed", 5))
    model = release.build_model(cfg)
    train_loader = release.train_loader(cfg)
    val_loader = None
    if cfg.data.get("val_path") is not None and not cfg.data.get("no_labels"):
        release.require_value(
            cfg, "data.dataset", "custom", "imagenet", "imagenet100"
        )  # ImageFolders
        _, val_loader = release.eval_loaders(
            cfg.data.train_path,
            cfg.data.val_path,
            cfg.augmentations[0].crop_size,
            cfg.optimizer.batch_size,
            cfg.data.num_workers,
            release.normalisation(cfg),
        )
    logs = Path(cfg.checkpoint.dir) / cfg.method
    logger = _logger(cfg, logs)
    loggers = with_loggers([logger], logger_names(cfg), logs)
    checkpointers = [release.checkpointer(cfg)] if cfg.checkpoint.enabled else []
    trainer = _trainer(cfg, loggers, [*callbacks, *checkpointers])
    resumed = release.checkpoint_to_resume(cfg, logs)
    if resumed is not None:
        # Lightning before 2.6 unpickles whatever a checkpoint holds: see first that it is harmless.
        load(require_file(Path(resumed)), mmap=True)
    trainer.fit(model, train_loader, val_loader, ckpt_path=resumed)
    return logs / str(logger.version)


def linear(cfg: DictConfig) -> dict[str, float]:
    """Train the host's ``LinearModel`` on a checkpoint's frozen network; return accuracies in %.

    They go to the run's ``linear.json``, with the data that they are of.
    """
    OmegaConf.set_struct(cfg, False)
    preflight.expand_home(cfg)
    preflight.check(cfg)
    seed_everything(cfg.get("seed", 5))
    release.require_value(cfg, "data.dataset", "custom", "imagenet", "imagenet100")  # ImageFolders
    run = find_run(Path(cfg.pretrained_feature_extractor))
    check_writable(run.folder, "the run's folder", "linear.json")
    if cfg.data.get("tail_path") is not None:
        check_labelled_folder(cfg.data.tail_path, "data.tail_path")
    weights = cfg.get("weights", "student")
    network, crop_size = load_network(run.checkpoint, weights)
    groups = groups_of(cfg.data.get("tail_path"), cfg.data.train_path)
    train_loader, val_loader = release.eval_loaders(
        cfg.data.train_path,
        cfg.data.val_path,
        OmegaConf.select(cfg, "data.augmentations.crop_size") or crop_size,
        cfg.optimizer.batch_size,
        cfg.data.num_workers,
        read_trained(run.checkpoint).normalisation,
    )
    if len(train_loader) == 0:
        raise UserError(
            "optimizer.batch_size",
            expected="at most the number of images in data.train_path",
            got=cfg.optimizer.batch_size,
            remedy="Lower it.",
        )
    scale = cfg.optimizer.batch_size * num_processes(cfg) / 256
    model = LinearModel(
        network,
        num_classes=release.num_classes(cfg),
        max_epochs=cfg.max_epochs,
        batch_size=cfg.optimizer.batch_size,
        optimizer=cfg.optimizer.name,
        lars=False,
        lr=cfg.optimizer.lr * scale,
        weight_decay=float(cfg.optimizer.weight_decay),
        exclude_bias_n_norm=False,
        extra_optimizer_args={
            **({"momentum": 0.9} if cfg.optimizer.name == "sgd" else {}),  # as the main branch
            **(cfg.optimizer.get("kwargs") or {}),
        },
        scheduler=cfg.scheduler.name,
        lr_decay_steps=cfg.scheduler.get("lr_decay_steps"),
    )
    trainer = _trainer(cfg, logger=False, callbacks=[])
    trainer.fit(model, train_loader, val_loader)
    model.eval()
    logits, targets = outputs_of(lambda images: model(images)["logits"], val_loader)
    result = grouped_accuracy(logits.argmax(dim=1), targets, groups)
    about = subject(run, weights, train_loader, val_loader, cfg.data.get("tail_path"))
    about["val_loss"] = float(F.cross_entropy(logits, targets))
    write_json(run.folder / "linear.json", {**result, "about": about})
    return result


def load_network(
    checkpoint: Path, weights: str = "student", to_choose: str = "weights={}"
) -> tuple[torch.nn.Module, int]:
    """Return the student or teacher network of a checkpoint and its training crop size (pixels).

    Args:
        checkpoint: its ``args.json`` beside it.
        weights: ``student`` or ``teacher``.
        to_choose: see ``load_file``.

    Raises:
        UserError: if the file or the ``args.json`` beside it is missing, for other ``weights``, or
            unless the file holds every tensor of the network that ``args.json`` describes.
    """
    networks = {"student": host_networks.student, "teacher": host_networks.teacher}
    if weights not in networks:
        raise UserError(
            "weights", expected="student or teacher", got=weights, remedy="Use one of the two."
        )
    args = read_args(settings_folder(checkpoint))
    kwargs = {k: v for k, v in args.items() if k not in ("name", "method", "config")}
    if args.get("method") not in METHODS:
        raise unknown_name("method in args.json", args.get("method"), METHODS)
    try:
        network = networks[weights](METHODS[args["method"]](**kwargs))
        crop_size = args["crop_size"][0]
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"args.json beside {checkpoint}",
            expected="the settings of a run of the installed host",
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[-1].strip()}",
            remedy=SAME_RUN,
        ) from error
    name = str(args.get("encoder"))
    _, note = load_file(network, checkpoint, weights, name, SAME_RUN, to_choose)
    print(f"{checkpoint.name}: {note}", file=sys.stderr)
    return network, crop_size


def subject(
    run: RunFiles, weights: str, train: DataLoader, val: DataLoader, tail_path: str | None
) -> dict[str, Any]:
    """Return what the figures are of, and say it: a figure is meaningless without its data."""
    folders: dict[str, Any] = {"train": train.dataset, "val": val.dataset}
    folders["tail"] = None if tail_path is None else image_folder(tail_path)
    about: dict[str, Any] = {"weights": weights, **run.checkpoint_facts()}
    for name, folder in folders.items():
        about[name] = None
        if folder is not None:
            about[name] = facts(folder.root, len(folder), len(folder.classes))
            print(f"{name:<6}{describe_data(about[name])}")
    return about


def outputs_of(network: Any, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """Return the network's outputs (N, ...) for the images of a loader, and their targets (N,)."""
    with torch.no_grad():
        pairs = [(network(images), targets) for images, targets in loader]
    outputs, targets = zip(*pairs)
    return torch.cat(outputs), torch.cat(targets)


def _logger(cfg: DictConfig, folder: Path) -> Logger:
    if OmegaConf.select(cfg, "wandb.enabled"):
        return WandbLogger(
            name=cfg.name,
            project=cfg.wandb.project,
            entity=cfg.wandb.get("entity"),
            offline=cfg.wandb.get("offline", False),
        )
    taken = {int(p.name) for p in folder.glob("*") if p.name.isdigit()}
    # A text is taken as the folder's name: logs and checkpoint share one.
    return CSVLogger(folder.parent, name=folder.name, version=str(max(taken, default=-1) + 1))


def _trainer(cfg: DictConfig, logger: Any, callbacks: list[Any]) -> Trainer:
    given: Any = OmegaConf.to_container(cfg)
    own_lines = cfg.get("method") == "dino_ood"  # in place of a bar, see solo_ood.training.progress
    given.setdefault("enable_progress_bar", own_lines or on_terminal(sys.stdout))
    known = inspect.signature(Trainer.__init__).parameters
    kwargs = {key: value for key, value in given.items() if key in known}
    callbacks = [*callbacks, RequireSteps()]
    kwargs.update(logger=logger, callbacks=callbacks, enable_checkpointing=False)
    if kwargs.get("strategy") == "ddp":
        kwargs["strategy"] = DDPStrategy(find_unused_parameters=False)
    return Trainer(**kwargs)


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write figures to ``path``."""
    path.write_text(json.dumps(result, indent=2) + "\n")
