"""Teacher features to score: those of the step, those in eval mode, and those of exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from solo_ood.replay.eval_mode import differs_in_eval_mode, eval_feats
from solo_ood.replay.source import ReplaySource
from solo_ood.selection.scorers import ExemplarScorer
from solo_ood.selection.selector import RareSelector


class TeacherFeats(ReplaySource):
    """Mixin that keeps the teacher's features of a step until they are scored.

    They cost nothing: the method computes them anyway, in training mode. ``scorer.feats=eval`` and
    exemplars take a forward pass of their own.
    """

    _teacher_feats: list[Tensor]  # (B, D) of each global crop of the current step
    _eval_pass: bool  # whether the features of the step have to be computed again, in eval mode

    @property
    def teacher(self) -> nn.Module:
        """The momentum network without its head."""
        return self.momentum_backbone

    def _shared_step_momentum(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        out = super()._shared_step_momentum(X, targets)
        if self.training and self.selector is not None:  # validation passes here, too
            self._teacher_feats.append(out["feats"].detach())
        return out

    def _check_eval_mode(self) -> None:
        """Check, once the teacher is complete, whether eval mode makes a difference."""
        # Without BatchNorm and the like, the features of the step itself are those of eval mode.
        self._eval_pass = self.ood.scorer.feats == "eval" and differs_in_eval_mode(self.teacher)

    def _feats_of_step(self, crops: Sequence[Tensor]) -> list[Tensor]:
        """Return what is scored of a step's global crops: (B, D) of each."""
        return self._eval_feats(crops) if self._eval_pass else self._teacher_feats

    def _eval_feats(self, crops: Sequence[Tensor]) -> list[Tensor]:
        """Return the teacher's features (B, D) of each crop, in eval mode."""
        if not getattr(self, "no_channel_last", True):  # the main branch converts its inputs so
            crops = [crop.to(memory_format=torch.channels_last) for crop in crops]
        return eval_feats(self.teacher, crops)

    def _refresh_exemplars(self, selector: RareSelector) -> None:
        """Re-embed the exemplars, if there are any, with the current teacher."""
        if self.exemplars is None or not isinstance(selector.scorer, ExemplarScorer):
            return
        crops = self.exemplars.next()[: self.num_large_crops]
        # They do not come from the train loader, whose batches Lightning converts itself.
        crops = self.trainer.precision_plugin.convert_input(crops)
        crops = self.trainer.strategy.batch_to_device(crops, self.device)
        parts = zip(*(crop.split(self.batch_size) for crop in crops))
        feats = torch.cat([selector.embed(self._eval_feats(part)) for part in parts])
        if self.trainer.world_size > 1:
            feats = broadcast_from_rank0(feats)
        if feats.isfinite().all(dim=1).any():  # otherwise the last ones stay
            selector.scorer.set_exemplars(feats)


def broadcast_from_rank0(x: Tensor) -> Tensor:
    """Return ``x`` of rank 0."""
    x = x.contiguous()
    torch.distributed.broadcast(x, src=0)
    return x
