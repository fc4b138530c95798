"""What is timed: networks and crops, arms, and their models and loaders from the real host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from solo.methods import METHODS
from torch.utils.data import DataLoader, Dataset

from solo_ood.host import arguments, release
from solo_ood.training.method import MultiCropDINO

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STOCK = "stock"
OOD = "++method_kwargs.ood."
# As in training with all defaults, but that scoring and replay begin within the warm-up steps and
# never pause: the queue is full and keeps what it holds. Every step then does all the work.
ALWAYS = [
    f"{OOD}start=0.0",
    f"{OOD}scorer.min_samples=2",
    f"{OOD}threshold.n=20",
    f"{OOD}queue.release=0.0",
    f"{OOD}queue.max_replays=null",
]
# By name; None is DINO without this package's method.
ARMS: dict[str, list[str] | None] = {
    STOCK: None,
    "stock again": None,
    "off": [f"{OOD}enabled=False"],
    "knn": [*ALWAYS, f"{OOD}scorer.name=knn"],
    "mahalanobis": [*ALWAYS, f"{OOD}scorer.name=mahalanobis"],
    "exemplar": [
        *ALWAYS,
        f"{OOD}scorer.name=exemplar",
        f"{OOD}scorer.feats=eval",
        f"{OOD}scorer.exemplars=[0,1,2,3,4,5,6,7,8,9]",
    ],
    "random": [*ALWAYS, f"{OOD}scorer.name=random"],
    "oracle": [*ALWAYS, f"{OOD}scorer.name=oracle"],
}


@dataclass(frozen=True)
class Setup:
    """A network, its crops and its batch size."""

    name: str
    backbone: str
    size: int  # pixels of the global crops
    local_size: int = 96
    n_local: int = 0
    batch: int = 4
    cuda_batch: int = 64
    large_head: bool = True  # solo-learn's defaults; else that of the demo
    precision: str = "32-true"  # Lightning's
    width: int | None = None  # of a ResNet-18, see solo_ood.host.narrow

    def batch_size(self, device: str) -> int:
        """Samples per step: a CPU has no time for batches that fill a GPU."""
        return self.cuda_batch if device == "cuda" else self.batch

    def overrides(self, batch: int) -> list[str]:
        """The config of this setup, as Hydra overrides of ``dino_ood.yaml``."""
        head = ["proj_hidden_dim=2048", "proj_output_dim=256", "num_prototypes=4096"]
        width = [] if self.width is None else [f"+backbone.kwargs.width={self.width}"]
        return [
            f"backbone.name={self.backbone}",
            f"augmentations.0.crop_size={self.size}",
            f"augmentations.1.crop_size={self.local_size}",
            f"augmentations.1.num_crops={self.n_local}",
            f"optimizer.batch_size={batch}",
            *(f"method_kwargs.{value}" for value in head if self.large_head),
            *width,
        ]


# What `make bench` times on a CPU in minutes; those that need a GPU are named by `--setups`.
DEFAULT = ("resnet18 at 32", "resnet18 at 224", "vit_tiny at 224, 4 x 96")
SETUPS = {
    setup.name: setup
    for setup in (
        Setup("resnet18 at 32", "resnet18", 32, 24, batch=32, cuda_batch=256, large_head=False),
        Setup("resnet18 at 224", "resnet18", 224),
        Setup("vit_tiny at 224, 4 x 96", "vit_tiny", 224, n_local=4),
        # What a GPU is for: DINO's 2 + 6 crops at the sizes of its paper.
        *(
            Setup(
                f"{name} at 224, 6 x 96, batch {batch}, bf16",
                name,
                224,
                n_local=6,
                batch=2,
                cuda_batch=batch,
                precision="bf16-mixed",
            )
            for name in ("resnet50", "vit_small")
            for batch in (64, 256)
        ),
        # For the test of this program: one step in a few hundredths of a second.
        Setup("tiny", "resnet18", 32, 24, batch=8, cuda_batch=8, large_head=False, width=16),
    )
}


def write_pictures(folder: Path, files: int = 4096, pictures: int = 64) -> Path:
    """Write an ImageFolder of 4 classes, long-tailed: JPEGs of 256 x 192 pixels, many the same."""
    rng = np.random.default_rng(0)
    bounds = files * np.array([0.6, 0.85, 0.95, 1.0])
    originals: list[Path] = []
    for i in range(files):
        path = folder / str(int(np.searchsorted(bounds, i, side="right"))) / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < pictures:
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            coarse.resize((256, 192), Image.Resampling.BICUBIC).save(path, quality=90)
            originals.append(path)
        else:
            path.hardlink_to(originals[i % pictures])
    return folder


class InMemory(Dataset):
    """Decoded samples of ``dataset``, repeated to ``length`` of them: nothing is left to read."""

    def __init__(self, dataset: Any, decoded: int, length: int = 4096) -> None:
        # Spread over the classes, which are in order.
        chosen = np.linspace(0, len(dataset) - 1, decoded).astype(int).tolist()
        self.samples_held = [dataset[i][1:] for i in chosen]
        self.targets = [self.samples_held[i % decoded][1] for i in range(length)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[int, Any, int]:
        return (index, *self.samples_held[index % len(self.samples_held)])


class DecodedLoader(DataLoader):
    """A loader of ``InMemory`` whose batches are made beforehand: a step does not wait for any."""

    def __init__(self, dataset: InMemory, batch_size: int, device: str) -> None:
        # No pinning by itself: replay would inherit a thread for it, and there is no other loader.
        super().__init__(dataset, batch_size, pin_memory=device == "cuda", drop_last=True)
        held = len(dataset.samples_held)
        rows = [range(i, i + batch_size) for i in range(0, held, batch_size)]
        self._ready = [self.collate_fn([dataset[i] for i in part]) for part in rows]
        if device == "cuda":
            self._ready = [
                [i.pin_memory(), [crop.pin_memory() for crop in crops], t.pin_memory()]
                for i, crops, t in self._ready
            ]

    def __iter__(self) -> Iterator[Any]:
        held = sum(len(indexes) for indexes, _, _ in self._ready)
        for number in range(len(self)):
            indexes, crops, targets = self._ready[number % len(self._ready)]
            shift = number // len(self._ready) * held
            yield [indexes + shift, crops, targets]


def config(setup: Setup, arm: str, pictures: Path, batch: int, workers: int, extra=()) -> Any:
    """Compose the config of one arm of a setup."""
    ood = ARMS[arm]
    overrides = [
        *setup.overrides(batch),
        f"data.train_path={pictures}",
        "data.val_path=null",
        f"data.num_workers={workers}",
        f"method={'dino' if ood is None else 'dino_ood'}",
        *(ood or []),
        *(extra if ood and arm != "off" else []),
    ]
    with initialize_config_dir(str(CONFIGS), version_base="1.2"):
        cfg = compose("dino_ood", overrides)
    OmegaConf.set_struct(cfg, False)
    return cfg


def build_model(cfg: Any) -> Any:
    """Build the host's method; stock DINO with local crops gets the loss that the release lacks.

    What comes after the first steps of a run is there at once: a full queue.
    """
    if cfg.method != "dino":
        model = release.build_model(cfg)
        if model.selector is not None:
            model.selector.queue.push(range(model.selector.queue.capacity))
        return model
    kwargs = release.method_kwargs(cfg)
    if not kwargs["num_small_crops"]:
        kwargs.pop("ood", None)
        return METHODS["dino"](**kwargs)
    return MultiCropDINO(**arguments.split_arguments((), kwargs).kwargs)


def decoded_loader(cfg: Any, batches: int, device: str, most: int = 256) -> DecodedLoader:
    """Return the loader whose batches are made beforehand, ``batches`` different ones.

    At most ``most`` images are decoded: of larger batches the rows repeat.
    """
    batch = cfg.optimizer.batch_size
    dataset = release.train_loader(cfg).dataset
    return DecodedLoader(InMemory(dataset, min(batches * batch, most)), batch, device)


def synchronise(device: str) -> None:
    """Wait for the GPU, if there is one: its work counts for the step that asked for it."""
    if device == "cuda":
        torch.cuda.synchronize()
