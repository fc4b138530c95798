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
from solo_ood.callbacks import RequireSteps
from solo_ood.embedding.weights import SAME_RUN, load_file
from solo_ood.errors import UserError, unknown_name
from solo_ood.evaluation.groups import grouped_accuracy, groups_of, members
from solo_ood.export import existing, read_args
from solo_ood.host import release
from solo_ood.loading import load
from solo_ood.loggers import logger_names, with_loggers
from solo_ood.preflight.steps import num_processes
from solo_ood.progress import on_terminal


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
        )
    logs = Path(cfg.checkpoint.dir) / cfg.method
    logger = _logger(cfg, logs)
    loggers = with_loggers([logger], logger_names(cfg), logs)
    callbacks = [release.checkpointer(cfg)] if cfg.checkpoint.enabled else []
    trainer = _trainer(cfg, loggers, callbacks)
    resumed = _checkpoint_to_resume(cfg, logs)
    if resumed is not None:
        # Lightning before 2.6 unpickles whatever a checkpoint holds: see first that it is harmless.
        load(existing(Path(resumed)), mmap=True)
    trainer.fit(model, train_loader, val_loader, ckpt_path=resumed)
    return logs / str(logger.version)


def linear(cfg: DictConfig) -> dict[str, float]:
    """Train the host's ``LinearModel`` on a checkpoint's frozen network; return accuracies in %."""
    OmegaConf.set_struct(cfg, False)
    preflight.expand_home(cfg)
    preflight.check(cfg)
    seed_everything(cfg.get("seed", 5))
    checkpoint = Path(cfg.pretrained_feature_extractor)
    network, crop_size = load_network(checkpoint, cfg.get("weights", "student"))
    groups = groups_of(cfg.data.get("tail_path"), cfg.data.train_path)
    train_loader, val_loader = release.eval_loaders(
        cfg.data.train_path,
        cfg.data.val_path,
        crop_size,
        cfg.optimizer.batch_size,
        cfg.data.num_workers,
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
        extra_optimizer_args=dict(cfg.optimizer.get("kwargs") or {}),
        scheduler=cfg.scheduler.name,
        lr_decay_steps=cfg.scheduler.get("lr_decay_steps"),
    )
    trainer = _trainer(cfg, logger=False, callbacks=[])
    trainer.fit(model, train_loader, val_loader)
    model.eval()
    logits, targets = _extract(lambda images: model(images)["logits"], val_loader)
    result = grouped_accuracy(logits.argmax(dim=1), targets, groups)
    _write_json(checkpoint.parent / "linear.json", result)
    return result


def knn(
    checkpoint: Path,
    train_path: str,
    val_path: str,
    weights: str = "student",
    k: int = 20,
    temperature: float = 0.07,
    distance: str = "cosine",
    tail_path: str | None = None,
    batch_size: int = 64,
    num_workers: int = 1,
) -> dict[str, float]:
    """Classify with the host's ``WeightedKNNClassifier``; return accuracies in percent.

    Args as in the host's ``main_knn.py``, and:

        tail_path: ImageFolder whose class counts define Many, Medium and Few.
    """
    groups = groups_of(tail_path, train_path)
    network, crop_size = load_network(checkpoint, weights)
    network.eval()
    loaders = release.eval_loaders(train_path, val_path, crop_size, batch_size, num_workers)
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
    _write_json(checkpoint.parent / "knn.json", result)
    return result


def load_network(checkpoint: Path, weights: str = "student") -> tuple[torch.nn.Module, int]:
    """Return the student or teacher network of a checkpoint and its training crop size (pixels).

    Raises:
        UserError: if the file or the ``args.json`` beside it is missing, for other ``weights``, or
            unless the file holds every tensor of the network that ``args.json`` describes.
    """
    networks = {"student": host.student, "teacher": host.teacher}
    if weights not in networks:
        raise UserError(
            "weights", expected="student or teacher", got=weights, remedy="Use one of the two."
        )
    args = read_args(existing(checkpoint).parent)
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
    _, note = load_file(network, checkpoint, weights, str(args.get("encoder")), SAME_RUN)
    print(f"{checkpoint.name}: {note}", file=sys.stderr)
    return network, crop_size


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


def _checkpoint_to_resume(cfg: DictConfig, folder: Path) -> str | None:
    """Return ``cfg.resume_from_checkpoint``, or the newest run of the same config."""
    if cfg.get("resume_from_checkpoint"):
        return cfg.resume_from_checkpoint
    if not OmegaConf.select(cfg, "auto_resume.enabled"):
        return None
    wanted = OmegaConf.to_container(cfg, resolve=True)
    newest_first = sorted(folder.glob("*/*.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True)
    for checkpoint in newest_first:
        args_path = checkpoint.parent / "args.json"
        if args_path.exists() and json.loads(args_path.read_text()).get("config") == wanted:
            return str(checkpoint)
    return None


def _write_json(path: Path, result: dict[str, float]) -> None:
    path.write_text(json.dumps(result, indent=2) + "\n")
