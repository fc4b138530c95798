"""Pre-training, linear and k-NN evaluation on solo-learn 1.0.2, whose release has no scripts."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from solo.methods import METHODS
from solo.methods.linear import LinearModel
from solo.utils.knn import WeightedKNNClassifier
from torch import Tensor
from torch.utils.data import DataLoader

from solo_ood import host, preflight
from solo_ood.bars import on_terminal
from solo_ood.callbacks import RequireSteps
from solo_ood.embedding.weights import SAME_RUN, load_file
from solo_ood.errors import UserError, unknown_name
from solo_ood.evaluation.data import facts, shown
from solo_ood.evaluation.groups import grouped_accuracy, groups_of, members
from solo_ood.export import existing, read_args, settings_folder
from solo_ood.host import release
from solo_ood.host.backbones import read_args as read_trained
from solo_ood.linear_config import run_setting
from solo_ood.loading import load
from solo_ood.loggers import logger_names, with_loggers
from solo_ood.output import check_writable
from solo_ood.preflight.data import check_labelled_folder
from solo_ood.preflight.steps import num_processes
from solo_ood.run_files import RunFiles, find_run


def pretrain(cfg: DictConfig) -> Path:
    """Train ``cfg.method`` and return the run's folder (checkpoint, args.json, metrics.csv)."""
    OmegaConf.set_struct(cfg, False)
    preflight.prepare(cfg)
    preflight.check(cfg)
    seed_everything(cfg.get("seed", 5))
    model = release.build_model(cfg)
    train_loader = release.train_loader(cfg)
    val_loader = None
    if cfg.data.get("val_path") is not None and not cfg.data.get("no_labels"):
        release.require(cfg, "data.dataset", "custom", "imagenet", "imagenet100")  # ImageFolders
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
    callbacks = [release.checkpointer(cfg)] if cfg.checkpoint.enabled else []
    trainer = _trainer(cfg, loggers, callbacks)
    resumed = release.checkpoint_to_resume(cfg, logs)
    if resumed is not None:
        # Lightning before 2.6 unpickles whatever a checkpoint holds: see first that it is harmless.
        load(existing(Path(resumed)), mmap=True)
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
    release.require(cfg, "data.dataset", "custom", "imagenet", "imagenet100")  # ImageFolders
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
    logits, targets = _extract(lambda images: model(images)["logits"], val_loader)
    result = grouped_accuracy(logits.argmax(dim=1), targets, groups)
    about = _about(run, weights, train_loader, val_loader, cfg.data.get("tail_path"))
    about["val_loss"] = float(F.cross_entropy(logits, targets))
    _write_json(run.folder / "linear.json", {**result, "about": about})
    return result


def knn(
    checkpoint: Path,
    train_path: str | Path | None = None,
    val_path: str | Path | None = None,
    weights: str = "student",
    k: int = 20,
    temperature: float = 0.07,
    distance: str = "cosine",
    tail_path: str | Path | None = None,
    batch_size: int = 64,
    num_workers: int = 1,
) -> dict[str, float]:
    """Classify with the host's ``WeightedKNNClassifier``; return accuracies in percent.

    They go to the run's ``knn.json``, with the data that they are of.

    Args as in the host's ``main_knn.py``, with the run's own data as defaults, and:

        tail_path: ImageFolder whose class counts define Many, Medium and Few; ``None`` = the run's
            training folder, where its data are evaluated.
    """
    run = find_run(checkpoint)
    check_writable(run.folder, "the run's folder", "knn.json")
    if tail_path is None and train_path is None:
        tail_path = run_setting(checkpoint, "tail_path")
    train_path = str(train_path or run_setting(checkpoint, "train_path"))
    val_path = str(val_path or run_setting(checkpoint, "val_path"))
    tail_path = None if tail_path is None else str(tail_path)
    for option, path in (("train", train_path), ("val", val_path), ("tail", tail_path)):
        if path is not None:
            check_labelled_folder(path, f"--{option}_data_path")
    network, crop_size = load_network(run.checkpoint, weights, "--weights {}")
    network.eval()
    groups = groups_of(tail_path, train_path)
    normalise = read_trained(run.checkpoint).normalisation
    loaders = release.eval_loaders(
        train_path, val_path, crop_size, batch_size, num_workers, normalise
    )
    train = _extract(network, _unshuffled(loaders[0]))
    feats, targets = _extract(network, loaders[1])
    if distance == "cosine":  # the metric takes the dot product of what it is given
        train, feats = (F.normalize(train[0]), train[1]), F.normalize(feats)

    def accuracy(rows: Tensor) -> float:
        classifier = WeightedKNNClassifier(k=k, T=temperature, distance_fx=distance)
        classifier.update(train_features=train[0], train_targets=train[1])
        classifier.update(test_features=feats[rows], test_targets=targets[rows])
        return float(classifier.compute()[0])

    everything = torch.arange(len(targets))
    result = {"All": accuracy(everything)}
    for name, mask in members(targets, groups).items():
        # The metric gives one number, for a test set that must hold every class: counting a
        # group's samples a second time, the difference is the group's own accuracy.
        group = everything[mask]
        twice = accuracy(torch.cat((everything, group)))
        total = len(everything) + len(group)
        result[name] = (twice * total - result["All"] * len(everything)) / len(group)
    about = _about(run, weights, *loaders, tail_path)
    about |= {"k": k, "temperature": temperature, "distance": distance}
    _write_json(run.folder / "knn.json", {**result, "about": about})
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
    networks = {"student": host.student, "teacher": host.teacher}
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


def _about(
    run: RunFiles, weights: str, train: DataLoader, val: DataLoader, tail_path: str | None
) -> dict[str, Any]:
    """Return what the figures are of, and say it: a figure without its data tells nothing."""
    folders: dict[str, Any] = {"train": train.dataset, "val": val.dataset}
    folders["tail"] = None if tail_path is None else release.image_folder(tail_path)
    about: dict[str, Any] = {"weights": weights, **run.checkpoint_facts()}
    for name, folder in folders.items():
        about[name] = None
        if folder is not None:
            about[name] = facts(folder.root, len(folder), len(folder.classes))
            print(f"{name:<6}{shown(about[name])}")
    return about


def _extract(network: Any, loader: DataLoader) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        pairs = [(network(images), targets) for images, targets in loader]
    outputs, targets = zip(*pairs)
    return torch.cat(outputs), torch.cat(targets)


def _unshuffled(loader: DataLoader) -> DataLoader:
    """Return the loader in order and without dropping a last batch: k-NN wants every sample."""
    return DataLoader(loader.dataset, batch_size=loader.batch_size, num_workers=loader.num_workers)


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
    own_lines = cfg.get("method") == "dino_ood"  # in place of a bar, see solo_ood.progress
    given.setdefault("enable_progress_bar", own_lines or on_terminal(sys.stdout))
    known = inspect.signature(Trainer.__init__).parameters
    kwargs = {key: value for key, value in given.items() if key in known}
    callbacks = [*callbacks, RequireSteps()]
    kwargs.update(logger=logger, callbacks=callbacks, enable_checkpointing=False)
    if kwargs.get("strategy") == "ddp":
        kwargs["strategy"] = DDPStrategy(find_unused_parameters=False)
    return Trainer(**kwargs)


def _write_json(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=2) + "\n")
