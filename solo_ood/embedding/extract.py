"""Embed the images of a split with Lightning's ``predict``, on any number of devices and nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from solo_ood.console import counting_bar
from solo_ood.data.images import Split
from solo_ood.data.pixels import Unreadable, load, reading
from solo_ood.data.survey import most_frequent, survey
from solo_ood.data.videos import frame_of
from solo_ood.embedding.devices import prediction_trainer
from solo_ood.embedding.networks import Embedder
from solo_ood.embedding.options import SIDE, ExtractConfig
from solo_ood.embedding.store import (
    MISSING,
    UNREADABLE,
    EmbeddingStore,
    check_whole,
    describe,
    store_key,
)
from solo_ood.errors import UserError

LARGEST = 64  # times the area that is seen: an image of 1 x 60000 pixels is not scaled whole


@dataclass(frozen=True)
class Embedded:
    """A split and its features.

    Attributes:
        split: without the images that could not be read or embedded.
        pooled: (N, D) float32.
        patches: (M, h, w, D') float16 of all M >= N images, mapped from the disk; or ``None``.
        rows: (N,) indexes of the split's images among these M.
        size: H and W (pixels) to which they were scaled and cut.
        shown: (N, 2) height and width (pixels) as they are shown; 0 = not known.
    """

    split: Split
    pooled: np.ndarray
    patches: np.ndarray | None
    rows: np.ndarray
    size: tuple[int, int]
    shown: np.ndarray | None = None


def embed(
    split: Split,
    embedder: Embedder,
    cfg: ExtractConfig,
    root: Path,
    what: str,
    size: tuple[int, int] | None = None,
) -> Embedded:
    """Return the features of ``split``, from the cache where they are there.

    ``size`` (H, W): see ``scale_and_crop``; ``None`` = that of ``common_size``.

    Raises:
        UserError: if rows are missing from a cache that several nodes do not share, or that is all
            there may be; if more than ``cfg.max_unreadable`` of the images cannot be read, or of
            the features are not finite.
    """
    if size is None or split.levels is None:
        seen = survey(split.paths)
        split = replace(split, levels=split.levels or seen.levels)
        size = size or common_size(seen.sizes[0], embedder, cfg.image_size or SIDE)
    how = "resize by 256/224, centre crop, bilinear" if cfg.as_host else "middle, bicubic"
    transform = f"cover {size[0]} x {size[1]}, {how}"
    with torch.no_grad():
        example = embedder(torch.zeros(1, 3, *size))
    dtypes = {"pooled": "float32", "patches": "float16"}
    shapes = {kind: (tuple(feats.shape[1:]), dtypes[kind]) for kind, feats in example.items()}
    key = store_key(split.paths, root, embedder.fingerprint, f"{transform} {shapes} {split.levels}")
    if cfg.cached_only:
        check_whole(cfg.folder / key, what)
    facts = {"network": embedder.name, "weights": embedder.note, "transform": transform}
    describe(cfg.folder / key, {**facts, "data": what})
    store = EmbeddingStore(cfg.folder / key, shapes, len(split))
    todo = [] if cfg.cached_only else store.missing_rows.tolist()
    if todo:
        # Each process needs a row; writing one twice does no harm.
        processes = cfg.num_nodes * (cfg.devices if isinstance(cfg.devices, int) else 1)
        todo += todo[:1] * (processes - len(todo))
        if any(frame_of(split.paths[row]) for row in todo):
            todo = in_turns(todo, cfg.num_workers, cfg.batch_size)
        images = Subset(_Images(split, embedder, size, cfg.as_host), todo)
        loader = DataLoader(images, cfg.batch_size, num_workers=cfg.num_workers)
        trainer = prediction_trainer(cfg, _Progress(f"{embedder.name}: {what}", len(todo)))
        trainer.predict(_Writer(embedder, store), loader, return_predictions=False)
        trainer.strategy.barrier()  # the other processes may still be writing
    kept, rows = _checked(split, store, cfg.max_unreadable, what)
    pooled = np.asarray(store.arrays["pooled"])[rows]
    return Embedded(kept, pooled, store.arrays.get("patches"), rows, size, store.sizes[rows])


def in_turns(rows: list[int], workers: int, batch: int) -> list[int]:
    """Return the rows in an order by which each worker reads neighbours.

    A loader gives its workers batches in turn. Of a video each would decode the frames of all
    others, too; so each has a part of the rows.
    """
    if workers < 2:
        return rows
    part = -(-len(rows) // (workers * batch)) * batch
    parts = [rows[start : start + part] for start in range(0, len(rows), part)]
    return [
        row
        for start in range(0, part, batch)
        for one in parts
        for row in one[start : start + batch]
    ]


def scale_and_crop(image: Image.Image, size: tuple[int, int], resample: int) -> Image.Image:
    """Return the image, scaled until it covers ``size`` (H, W, pixels), and cut to its middle."""
    from torchvision.transforms.functional import center_crop

    height, width = size
    scale = max(height / image.height, width / image.width)
    scaled = (max(width, int(image.width * scale)), max(height, int(image.height * scale)))
    if scaled[0] * scaled[1] > LARGEST * height * width:
        image = center_crop(image, [ceil(side / scale) for side in size])
        return image.resize((width, height), resample)
    return center_crop(image.resize(scaled, resample), list(size))


def centre_cropped(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the middle, ``size`` (H, W, pixels), of the image at 256/224 of that: the host's way.

    Without it k-NN and linear evaluation here and by the host's own scripts would not agree.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import center_crop, resize

    side = round(min(size) * 256 / 224)
    return center_crop(resize(image, [side], InterpolationMode.BILINEAR), list(size))


class _Images(Dataset):
    """(row, image (3, H, W), its height and width as shown; 0 = not readable) of each path."""

    def __init__(
        self, split: Split, embedder: Embedder, size: tuple[int, int], as_host: bool
    ) -> None:
        from torchvision import transforms

        self.paths = split.paths
        self.levels = split.levels
        self.size = size
        fitted = partial(scale_and_crop, size=size, resample=Image.Resampling.BICUBIC)
        self.transform = transforms.Compose(
            [
                partial(centre_cropped, size=size) if as_host else fitted,
                transforms.ToTensor(),
                transforms.Normalize(embedder.mean, embedder.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[int, Tensor, tuple[int, int]]:
        path = self.paths[row]
        try:
            with reading(path):
                image = load(path, self.levels)
                return row, self.transform(image), (image.height, image.width)
        except Unreadable:
            return row, torch.zeros(3, *self.size), (0, 0)


class _Writer(LightningModule):
    """Embeds batches and writes them to the store."""

    def __init__(self, embedder: Embedder, store: EmbeddingStore) -> None:
        super().__init__()
        self.embedder = embedder
        self.store = store

    def predict_step(self, batch: tuple[Tensor, Tensor, list[Tensor]], batch_idx: int) -> None:
        rows, images, shown = batch
        sizes = torch.stack(shown, dim=1).cpu().numpy()  # (B, 2)
        found = self.embedder(images)
        if "patches" in found:  # only their directions count, and these fit into half precision
            found["patches"] = F.normalize(found["patches"], dim=-1)
        feats = {kind: x.cpu().numpy() for kind, x in found.items()}
        self.store.write(rows.cpu().numpy(), feats, sizes[:, 0] > 0, sizes)


class _Progress(Callback):
    """A bar that counts images."""

    def __init__(self, what: str, n: int) -> None:
        self.what = what
        self.n = n
        self.bar: Any = None

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.bar = counting_bar(self.n, self.what, "img")

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.bar is not None:
            left = self.bar.total - self.bar.n
            self.bar.update(min(left, len(batch[0]) * trainer.world_size))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def common_size(sizes: np.ndarray, embedder: Embedder, side: int) -> tuple[int, int]:
    """Return H and W (pixels) for all images, in multiples of what the network takes.

    The shape that most images have, its shorter side being ``side``; or the only size that the
    network can take.

    Args:
        sizes: (N, 2) height and width of the images.
        embedder: the network.
        side: in pixels.

    Raises:
        UserError: if there are no images.
    """
    if embedder.fixed_size is not None:
        return embedder.fixed_size
    if not len(sizes):
        raise UserError(
            "images",
            expected="files that Pillow can read, such as JPEG and PNG",
            got="none",
            remedy="Open one in an image viewer: convert it if it opens, copy it again if not.",
        )
    # At odd sizes the strides of a CNN pad one side more than the other: a shift of the map.
    multiple = embedder.multiple if embedder.multiple > 1 else 8
    scaled = np.rint(sizes * (side / sizes.min(axis=1, keepdims=True))).astype(np.int64)
    return most_frequent(np.maximum(multiple, scaled // multiple * multiple))


def _checked(
    split: Split, store: EmbeddingStore, limit: float, what: str
) -> tuple[Split, np.ndarray]:
    """Leave out unreadable images and features that are not finite; raise for too many."""
    status = np.asarray(store.status)
    if (status == MISSING).any():
        raise UserError(
            f"embeddings of {what}",
            expected=f"{len(split)} rows in the cache",
            got=f"{int((status == MISSING).sum())} that no process has written",
            remedy="On several nodes --cache must be a folder that all of them share.",
        )
    readable = status != UNREADABLE
    finite = np.isfinite(store.arrays["pooled"]).all(axis=1) | ~readable
    for reason, good in (("image not readable", readable), ("features not finite", finite)):
        if (~good).mean() > limit:
            bad = [split.paths[row] for row in np.flatnonzero(~good)[:3]]
            raise UserError(
                f"{what}: {reason}",
                expected=f"at most {limit:.1%} of {len(split)} images",
                got=f"{int((~good).sum())}, for instance {', '.join(path.name for path in bad)}"
                f"{_error_text(bad[0])}",
                remedy="Repair or remove them, or allow more with --max-unreadable.",
            )
    kept = split.keep(readable, "image not readable")
    kept = kept.keep(finite[readable], "features not finite")
    return kept, np.flatnonzero(readable & finite)


def _error_text(path: Path) -> str:
    """Return what is wrong with a file, in brackets."""
    try:
        load(path)
    except Unreadable as error:
        return f" ({error.reason})"
    return ""
