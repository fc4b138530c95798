"""Fixtures: a small config of the real host, its data, model and Trainer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaged import images, kill_workers, prepared, whole  # noqa: F401  (fixtures)
from repository import NO_WIDTH, ROOT, WIDTH

# Parallel processes on few cores: more threads each only make all of them slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = [
    WIDTH,
    "optimizer.batch_size=8",
    "data.num_workers=0",
    "max_epochs=2",
    "method_kwargs.proj_hidden_dim=32",
    "method_kwargs.proj_output_dim=16",
    "method_kwargs.num_prototypes=32",
    "augmentations.1.num_crops=1",
    "augmentations.0.crop_size=32",
    "augmentations.1.crop_size=24",
    "check_val_every_n_epoch=1",
    "++method_kwargs.ood.start=0.0",
    "++method_kwargs.ood.scorer.n_reference=64",
    "++method_kwargs.ood.scorer.min_samples=16",
    "++method_kwargs.ood.threshold.n=16",
    "++method_kwargs.ood.threshold.percentile=0.8",
]


FIRST = {"processes": 0, "host": 1, "unit": 2}  # folders, those of the longest files first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long files first; skip what needs a CUDA device where there is none.

    A long file that is started last keeps one worker busy while the others wait.
    """
    import torch

    items.sort(key=lambda item: FIRST.get(item.path.parent.name, 0))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def digits_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the embedded data of this session in a folder of its own."""
    cache = tmp_path_factory.mktemp("cache")
    os.environ["SOLO_OOD_CACHE"] = str(cache)
    return cache


@pytest.fixture(scope="session")
def registered() -> None:
    """The real host with ``dino_ood`` in its registry."""
    from solo_ood.training.plugin import register

    register()


@pytest.fixture
def compose(registered: None) -> Callable[..., Any]:
    """Compose ``configs/dino_ood.yaml`` with the overrides of ``TINY`` and of the test."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    from solo_ood.host import installed

    def composed(*overrides: str, tiny: bool = True) -> Any:
        other = any(o == NO_WIDTH or o.startswith("backbone.name=") for o in overrides)
        small = [override for override in TINY if tiny and not (other and override == WIDTH)]
        overrides = tuple(override for override in overrides if override != NO_WIDTH)
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.2"):
            cfg = hydra_compose("dino_ood", [*small, *overrides])
        OmegaConf.set_struct(cfg, False)
        if installed.generation() == "checkout":
            from solo.args.pretrain import parse_cfg

            cfg = parse_cfg(cfg)
        return cfg

    return composed


@pytest.fixture
def build(registered: None) -> Callable[[Any], Any]:
    """Build ``cfg.method`` with the host's own constructor."""
    from solo.methods import METHODS

    from solo_ood.host import installed

    def built(cfg: Any) -> Any:
        if installed.generation() == "checkout":
            return METHODS[cfg.method](cfg)
        from solo_ood.host import release

        if cfg.method == "dino":  # stock DINO knows nothing of our block and takes no unknown key
            kwargs = release.method_kwargs(cfg)
            kwargs.pop("ood", None)
            return METHODS["dino"](**kwargs)
        return release.build_model(cfg)

    return built


@pytest.fixture
def loader(registered: None) -> Callable[[Any], Any]:
    """Return the host's own training loader for a config."""
    from solo_ood.host import installed

    def loaded(cfg: Any) -> Any:
        if installed.generation() == "release":
            from solo_ood.host import release

            return release.train_loader(cfg)
        from solo.data import pretrain_dataloader as data

        transform = data.FullTransformPipeline(
            [
                data.NCropAugmentation(
                    data.build_transform_pipeline(cfg.data.dataset, a), a.num_crops
                )
                for a in cfg.augmentations
            ]
        )
        dataset = data.prepare_datasets(
            cfg.data.dataset,
            transform,
            train_data_path=cfg.data.train_path,
            data_format=cfg.data.format,
            no_labels=cfg.data.no_labels,
        )
        return data.prepare_dataloader(dataset, cfg.optimizer.batch_size, cfg.data.num_workers)

    return loaded


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Any]:
    """Return a real Trainer on the CPU without logs or progress bar."""
    from lightning.pytorch import Trainer

    def made(**kwargs: Any) -> Any:
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
            "max_epochs": 2,
        }
        return Trainer(**{**defaults, **kwargs})

    return made


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """The overrides that make a run small, for programs that compose the config themselves."""
    return list(TINY)
