"""Started by test_ddp.py: train ``dino_ood`` on two gloo processes, write each one's state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, Trainer, seed_everything
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Subset

from solo_ood.host import installed
from solo_ood.training.plugin import register


class Recorder(Callback):
    """Record the rows and the replayed indexes of every step, as the selector is told of them."""

    def on_train_start(self, trainer, module):
        self.rows, self.replayed = [], []
        step = module.selector.step

        def recorded(indexes, feats, targets, n_replayed=0, **processes):
            self.rows.append(len(indexes))
            self.replayed.append(indexes[len(indexes) - n_replayed :].tolist())
            return step(indexes, feats, targets, n_replayed, **processes)

        module.selector.step = recorded


def model_and_loader(configs: str | Path, overrides: list[str]) -> tuple[Any, Any]:
    """Build what the config of ``overrides`` describes, with the host that is installed."""
    register()
    with initialize_config_dir(str(configs), version_base="1.2"):
        cfg = compose("dino_ood", overrides)
    OmegaConf.set_struct(cfg, False)
    seed_everything(3)
    if installed.generation() == "release":
        from solo_ood.host import release

        return release.build_model(cfg), release.train_loader(cfg)
    from solo.args.pretrain import parse_cfg
    from solo.data import pretrain_dataloader as data
    from solo.methods import METHODS

    cfg = parse_cfg(cfg)
    pipelines = [
        data.NCropAugmentation(data.build_transform_pipeline("custom", a), a.num_crops)
        for a in cfg.augmentations
    ]
    model = METHODS[cfg.method](cfg)
    dataset = data.prepare_datasets(
        "custom", data.FullTransformPipeline(pipelines), train_data_path=cfg.data.train_path
    )
    return model, data.prepare_dataloader(dataset, cfg.optimizer.batch_size, 0)


def with_short_batches(loader: DataLoader) -> DataLoader:
    """Return a loader of 310 samples: for each of 2 processes 19 batches of 8, and one of 3."""
    dataset = Subset(loader.dataset, [*range(309), 400])
    return DataLoader(dataset, 8, shuffle=True, drop_last=False, collate_fn=loader.collate_fn)


def main(configs: str, out: str, overrides: list[str]) -> None:
    model, loader = model_and_loader(configs, overrides)
    recorder = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=model.max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder],
    )
    trainer.fit(model, with_short_batches(loader))
    model.selector.judge_pending()
    state = model.selector.state_dict()
    state["replayed"], state["rows"] = recorder.replayed, recorder.rows
    state["weights"] = {k: v.clone() for k, v in model.state_dict().items() if "center" in k}
    torch.save(state, Path(out) / f"{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
