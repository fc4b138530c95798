"""Drive solo-learn 1.0.2 with the config schema of solo-learn's main branch."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from solo.args.utils import N_CLASSES_PER_DATASET
from solo.methods import METHODS
from solo.utils.checkpointer import Checkpointer
from solo.utils.classification_dataloader import prepare_dataloaders
from solo.utils.pretrain_dataloader import (
    prepare_dataloader,
    prepare_datasets,
    prepare_n_crop_transform,
    prepare_transform,
)
from torch.utils.data import DataLoader, WeightedRandomSampler

from solo_ood.data.image_folder import image_folder
from solo_ood.data.training_images import show_all_bits
from solo_ood.errors import UserError, unknown_name
from solo_ood.host import networks
from solo_ood.host.arguments import num_processes
from solo_ood.host.run_args import NAME
from solo_ood.host.run_folder import find_run
from solo_ood.selection.classes import targets_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)


def num_classes(cfg: DictConfig) -> int:
    """Return the classes of a stock data set, or the folders of a custom one (at least 1)."""
    if cfg.data.dataset in N_CLASSES_PER_DATASET:
        return N_CLASSES_PER_DATASET[cfg.data.dataset]
    return max(1, sum(entry.is_dir() for entry in os.scandir(cfg.data.train_path)))


def require_value(node: Any, key: str, *wanted: Any) -> None:
    """Raise unless ``key`` is absent or one of ``wanted``: what 1.0.2 can do."""
    got = OmegaConf.select(node, key)
    if got is not None and got not in wanted:
        raise UserError(
            key,
            expected=f"{wanted[0]}, all that solo-learn 1.0.2 has",
            got=got,
            remedy="Change the key, or use solo-learn's main branch.",
        )


def crop_counts(cfg: DictConfig) -> tuple[int, int]:
    """Return the number of global crops (of the first pipeline's size) and of local ones."""
    first = cfg.augmentations[0].crop_size
    large = sum(a.num_crops for a in cfg.augmentations if a.crop_size == first)
    return large, sum(a.num_crops for a in cfg.augmentations) - large


def method_kwargs(cfg: DictConfig) -> dict[str, Any]:
    """Translate a config of the main branch into the keyword arguments of 1.0.2."""
    optimizer, scheduler, momentum = cfg.optimizer, cfg.scheduler, cfg.get("momentum") or {}
    extra: Any = OmegaConf.to_container(optimizer.get("kwargs") or OmegaConf.create())
    lars = optimizer.name == "lars"
    large, small = crop_counts(cfg)
    backbone = dict(cfg.backbone.get("kwargs") or {})
    # The stem for images of 32 pixels; backbone.kwargs.cifar chooses it for other data.
    backbone.setdefault("cifar", cfg.data.dataset in ("cifar10", "cifar100"))
    if not cfg.backbone.name.startswith("resnet"):
        backbone.setdefault("img_size", cfg.augmentations[0].crop_size)
    scale = optimizer.batch_size * num_processes(cfg) / 256  # as both generations scale it
    own: Any = OmegaConf.to_container(cfg.get("method_kwargs") or OmegaConf.create(), resolve=True)
    dino = {  # the defaults of the main branch
        "clip_grad": 0,
        "freeze_last_layer": 1,
        "norm_last_layer": True,
        "use_bn_in_head": False,
        "student_temperature": 0.1,
        "teacher_temperature": 0.07,
        "warmup_teacher_temperature": 0.04,
        "warmup_teacher_temperature_epochs": 0,
    }
    return {
        **dino,
        **own,
        "encoder": cfg.backbone.name,
        "backbone_args": backbone,
        "num_classes": num_classes(cfg),
        "max_epochs": cfg.max_epochs,
        "batch_size": optimizer.batch_size,
        "optimizer": "sgd" if lars else optimizer.name,
        "lars": lars,
        "eta_lars": extra.pop("eta", 1e-3),
        "grad_clip_lars": extra.pop("clip_lr", False),
        "exclude_bias_n_norm": extra.pop("exclude_bias_n_norm", False),
        "extra_optimizer_args": {"momentum": 0.9, **extra}
        if optimizer.name in ("sgd", "lars")
        else extra,
        "lr": optimizer.lr * scale,
        "classifier_lr": optimizer.get("classifier_lr", optimizer.lr) * scale,
        "weight_decay": float(optimizer.weight_decay),
        "accumulate_grad_batches": cfg.get("accumulate_grad_batches") or 1,
        "scheduler": scheduler.name,
        "lr_decay_steps": scheduler.get("lr_decay_steps"),
        "min_lr": scheduler.get("min_lr", 0.0),
        "warmup_start_lr": scheduler.get("warmup_start_lr", 3e-5),
        "warmup_epochs": scheduler.get("warmup_epochs", 10),
        "num_large_crops": large,
        "num_small_crops": small,
        "crop_size": [a.crop_size for a in cfg.augmentations],
        "base_tau_momentum": momentum.get("base_tau", 0.99),
        "final_tau_momentum": momentum.get("final_tau", 1.0),
        "momentum_classifier": momentum.get("classifier", False),
        "knn_eval": bool(OmegaConf.select(cfg, "knn_eval.enabled")),
        "knn_k": OmegaConf.select(cfg, "knn_eval.k") or 20,
    }


def build_model(cfg: DictConfig) -> Any:
    """Build ``cfg.method``.

    Raises:
        UserError: for a method that is not registered.
    """
    if cfg.method not in METHODS:
        raise unknown_name("method", cfg.method, METHODS)
    return METHODS[cfg.method](**method_kwargs(cfg))


def train_transform(cfg: DictConfig) -> Any:
    """Return the multi-crop pipeline of ``cfg.augmentations``, from the host's own parts."""
    pipelines = []
    for a in cfg.augmentations:
        for key, wanted in (("rrc.enabled", True), ("equalization.prob", 0)):
            require_value(a, key, wanted)
        values = {
            "brightness": a.color_jitter.brightness,
            "contrast": a.color_jitter.contrast,
            "saturation": a.color_jitter.saturation,
            "hue": a.color_jitter.hue,
            "color_jitter_prob": a.color_jitter.prob,
            "gray_scale_prob": a.grayscale.prob,
            "horizontal_flip_prob": a.horizontal_flip.prob,
            "gaussian_prob": a.gaussian_blur.prob,
            "solarization_prob": a.solarization.prob,
            "min_scale": a.rrc.crop_min_scale,
            "max_scale": a.rrc.crop_max_scale,
            "crop_size": a.crop_size,
        }
        if cfg.data.dataset == "custom":
            values["mean"], values["std"] = a.get("mean", IMAGENET_MEAN), a.get("std", IMAGENET_STD)
        pipelines.append(prepare_transform(cfg.data.dataset, **values))
    return prepare_n_crop_transform(pipelines, [a.num_crops for a in cfg.augmentations])


def train_loader(cfg: DictConfig) -> DataLoader:
    """Return the loader of ``[indexes, [crops], targets]``.

    With ``data.class_balanced`` each row's class is drawn uniformly, then one of its images: as
    many steps, every class as often. It is a control, the most that rebalancing can do.

    Raises:
        UserError: for a setting that 1.0.2 does not have, or no labels to balance by.
    """
    require_value(cfg, "data.format", "image_folder")
    require_value(cfg, "data.fraction", -1)
    path = Path(cfg.data.train_path)
    dataset = prepare_datasets(
        cfg.data.dataset,
        train_transform(cfg),
        data_dir=path.parent,
        train_dir=path.name,
        no_labels=cfg.data.get("no_labels", False),
    )
    loader = prepare_dataloader(dataset, cfg.optimizer.batch_size, cfg.data.num_workers)
    return _class_balanced(loader) if cfg.data.get("class_balanced") else loader


def _class_balanced(loader: DataLoader) -> DataLoader:
    """Return ``loader`` with draws that give every class the same share."""
    targets = targets_of(loader.dataset)
    if targets is None:
        raise UserError(
            "data.class_balanced",
            expected="labelled training data",
            got="none with labels",
            remedy="It is a control for labelled data; leave it out.",
        )
    classes, counts = np.unique(targets, return_counts=True)
    weights = 1 / counts[np.searchsorted(classes, targets)]
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=WeightedRandomSampler(weights.tolist(), len(targets)),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        drop_last=True,
    )


def normalisation(cfg: DictConfig) -> tuple[Any, Any]:
    """Return the mean and standard deviation per channel of ``train_transform``'s custom data."""
    first = cfg.augmentations[0]
    return first.get("mean", IMAGENET_MEAN), first.get("std", IMAGENET_STD)


def eval_loaders(
    train_path: str,
    val_path: str,
    size: int,
    batch_size: int,
    num_workers: int,
    normalise: tuple[Any, Any] = (IMAGENET_MEAN, IMAGENET_STD),
) -> tuple[DataLoader, DataLoader]:
    """Return the loaders of two ImageFolders for linear and k-NN evaluation, centre-cropped.

    Class ids are those of ``train_path``, also where ``val_path`` lacks some of its classes.

    Raises:
        UserError: if ``val_path`` has classes that ``train_path`` does not have.
    """
    transform = networks.eval_transform(size, normalise)
    train, val = (image_folder(path, transform) for path in (train_path, val_path))
    unknown = sorted(set(val.classes) - set(train.classes))
    if unknown:
        raise UserError(
            f"validation images {val_path}",
            expected=f"no classes but those of {train_path}",
            got=f"{len(unknown)} others, such as {unknown[0]}",
            remedy="Give two folders of the same data set.",
        )
    ids = [train.classes.index(name) for name in val.classes]
    val.target_transform = ids.__getitem__
    show_all_bits(train, val)
    return prepare_dataloaders(train, val, batch_size, num_workers)


def checkpointer(cfg: DictConfig) -> Checkpointer:
    """Return the host's checkpoint callback; ``args.json`` gets what rebuilds the model."""
    args = {
        "name": cfg.name,
        "method": cfg.method,
        **method_kwargs(cfg),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    return Checkpointer(
        Namespace(**args),
        logdir=Path(cfg.checkpoint.dir) / cfg.method,
        frequency=cfg.checkpoint.get("frequency", 1),
        keep_previous_checkpoints=cfg.checkpoint.get("keep_prev", False),
    )


def checkpoint_to_resume(cfg: DictConfig, folder: Path) -> str | None:
    """Return ``cfg.resume_from_checkpoint``, or the newest run of the same config below ``folder``.

    ``None`` = train from scratch.
    """
    if cfg.get("resume_from_checkpoint"):
        return cfg.resume_from_checkpoint
    if not OmegaConf.select(cfg, "auto_resume.enabled"):
        return None
    wanted = OmegaConf.to_container(cfg, resolve=True)
    found = []
    for path in folder.glob(f"*/{NAME}"):
        try:
            found.append(find_run(path.parent))
        except UserError:  # a run that ended before its first checkpoint
            continue
    for run in sorted(found, key=lambda run: run.checkpoint.stat().st_mtime, reverse=True):
        if run.args.get("config") == wanted:
            return str(run.checkpoint)
    return None
