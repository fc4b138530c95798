"""The controls of every experiment: random picks, and picks by the true class frequency."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from solo_ood.errors import UserError
from solo_ood.selection.hashing import uniform
from solo_ood.selection.scorers.base import Scorer

_FLOAT_BITS = 24  # of a float32's significand


class RandomScorer(Scorer):
    """A fixed random number in [0, 1) for each sample: random picks that persist.

    A detector finds about the same samples at every look, so it replays few samples often. With
    new noise at each look a control would replay many samples rarely, and *which* samples would be
    confounded with *how few*. The number is a hash of the seed and the dataset index: the same on
    every device, on every process and after a resume.

    Args:
        dim: D, the feature size (checked, not used).
        min_samples: rows to learn before ``ready``, as for the other scorers.
        seed: another one, other picks.
    """

    def __init__(self, dim: int, min_samples: int = 256, seed: int = 0) -> None:
        super().__init__(dim, min_samples, normalize=False)
        self.seed = seed

    def reset(self) -> Self:
        self.n_fed = 0
        return self

    def _learn(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> None:
        pass  # nothing to learn

    def _score(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> Tensor:
        return self._own(indexes)

    def _own(self, indexes: Tensor | None, bits: int = _FLOAT_BITS) -> Tensor:
        if indexes is None:
            raise UserError(
                f"{type(self).__name__}.ood_score",
                expected="the dataset indexes (N,) of the samples",
                got="None",
                remedy="Give them as `indexes`, or use the scorer random-fresh, which needs none.",
            )
        return uniform(indexes, self.seed, bits)

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "seed": self.seed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.seed = state["seed"]


class RandomFreshScorer(Scorer):
    """New noise in [0, 1) at each call: the same flag rate, but other picks in every epoch.

    Args:
        dim: D, the feature size (checked, not used).
        min_samples: rows to learn before ``ready``, as for the other scorers.
        seed: of its own generator.
    """

    def __init__(self, dim: int, min_samples: int = 256, seed: int = 0) -> None:
        super().__init__(dim, min_samples, normalize=False)
        # On the CPU, so that a seed means the same on every device; B numbers are a small copy.
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = seed

    def reset(self) -> Self:
        self.generator.manual_seed(self.seed)
        self.n_fed = 0
        return self

    def _learn(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> None:
        pass  # nothing to learn

    def _score(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> Tensor:
        noise = torch.rand(len(feats), generator=self.generator, dtype=torch.float32)
        if feats.is_cuda:  # from pageable memory the copy would wait for the device
            noise = noise.pin_memory()
        return noise.to(feats.device, non_blocking=True)

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "rng": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.generator.set_state(state["rng"].cpu())


class OracleScorer(RandomScorer):
    """The number of classes seen more often than the sample's own: an upper bound for detectors.

    In [0, C]. Ranks, unlike counts, do not drift with the length of the stream. A sample's own
    number in [0, 1) breaks the ties inside a class, always in the same way, and cannot reorder
    classes. Unlabelled samples (target -1) score minus infinity: never rare.

    Args:
        dim: D, the feature size (checked, not used).
        num_classes: C.
        min_samples: rows to learn before ``ready``.
        seed: another one, other picks inside a class.
    """

    counts: Tensor  # (C,) int64

    def __init__(self, dim: int, num_classes: int, min_samples: int = 256, seed: int = 0) -> None:
        super().__init__(dim, min_samples, seed)
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def reset(self) -> Self:
        super().reset()
        self.counts.zero_()
        return self

    def _learn(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> None:
        targets = self._labels(targets)
        labelled = (targets >= 0).to(torch.int64)
        self.counts.scatter_add_(0, targets.clamp(min=0), labelled)

    def _score(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> Tensor:
        targets = self._labels(targets)
        own = self.counts[targets.clamp(min=0)]
        # As many bits as float32 has left beside the rank, or a sum would round up to the next.
        bits = max(1, _FLOAT_BITS - len(self.counts).bit_length())
        scores = (self.counts > own[:, None]).sum(dim=1) + self._own(indexes, bits)
        return torch.where(targets >= 0, scores, torch.full_like(scores, float("-inf")))

    def _labels(self, targets: Tensor | None) -> Tensor:
        if targets is None:
            raise UserError(
                "scorer oracle",
                expected="targets (N,)",
                got="None",
                remedy="The oracle is a control for labelled data; use ood.scorer.name=knn.",
            )
        return targets
