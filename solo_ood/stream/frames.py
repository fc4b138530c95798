"""Scores of frames as they come: each from those before it, by a network that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, to_tensor

from solo_ood.data.pixels import Unreadable, load, reading
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import common_size, scale_and_crop
from solo_ood.selection.scorers import Scorer


class FrameScorer:
    """Scores frames one after the other: each is scored first and learnt then.

    All frames are scaled and cut to one size, that of the first, so that scores can be compared.

    Args:
        embedder: the network.
        scorer: of its pooled features, with no labels.
        side: pixels of the shorter side.
        batch_size: images that the network gets at a time.

    Attributes:
        unreadable: names of the files that could not be read, of this process.
    """

    def __init__(
        self, embedder: Embedder, scorer: Scorer, side: int = 224, batch_size: int = 32
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.embedder, self.scorer = embedder.to(self.device), scorer.to(self.device)
        self.side, self.batch_size = side, batch_size
        self.size: tuple[int, int] | None = None
        self.unreadable: list[str] = []

    def scored(self, paths: Sequence[Path]) -> Iterator[tuple[list[Path], Tensor]]:
        """Yield the paths batch by batch with their scores (B,).

        The score is NaN for the first ``min_samples`` frames, and for a file that cannot be read.
        """
        rest = iter(paths)
        while batch := list(islice(rest, self.batch_size)):
            yield batch, self._scores(batch)

    def _scores(self, paths: list[Path]) -> Tensor:
        images = {}
        for row, path in enumerate(paths):
            try:
                images[row] = self._image(path)
            except Unreadable as error:
                self.unreadable.append(f"{path} ({error.reason})")
        scores = torch.full((len(paths),), float("nan"))
        if not images:
            return scores
        with torch.inference_mode():
            feats = self.embedder(torch.stack(list(images.values())).to(self.device))["pooled"]
        for row, feat in zip(images, feats.clone()):
            # Singly, so that the scores do not depend on how many frames came at a time.
            if self.scorer.ready:
                scores[row] = self.scorer.ood_score(feat[None])[0].cpu()
            self.scorer.partial_fit(feat[None])
        return scores

    def _image(self, path: Path) -> Tensor:
        with reading(path):
            image = load(path)
            if self.size is None:
                shape = np.array([[image.height, image.width]])
                self.size = common_size(shape, self.embedder, self.side)
            image = scale_and_crop(image, self.size, Image.Resampling.BICUBIC)
            return normalize(to_tensor(image), self.embedder.mean, self.embedder.std)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only."""
        return {"scorer": self.scorer.state_dict(), "size": list(self.size or ())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.scorer.load_state_dict(state["scorer"])
        height, width = state["size"] or (0, 0)
        self.size = (height, width) if state["size"] else None
