"""Lets solo-learn's evaluation during training see only the fresh rows of a mixed batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from solo.methods.base import BaseMomentumMethod as Base
else:
    Base = object


class HideReplaysFromMetrics(Base):
    """Mixin that hides replays from the method's online classifiers, accuracies and k-NN.

    solo-learn trains linear classifiers on detached features, logs their accuracies and fills the
    memory of its online k-NN in the step itself. With replays in them, runs that replay other
    samples could not be compared by these figures. Of a batch that was mixed with
    ``mix.mode=append`` they see all fresh rows, with ``replace`` those that were kept. There is no
    second forward pass, and a batch without replays goes the usual way.
    """

    _n_replayed = 0  # replayed rows at the end of the current batch
    _fresh_feats: list[Tensor]  # of the student, (B - m, D) for each of its global crops

    def hide_replays_from_classifiers(self) -> None:
        """Hide replays from the classifiers; called once they are built."""
        for name in ("classifier", "momentum_classifier"):
            classifier = getattr(self, name, None)
            if isinstance(classifier, nn.Module):
                classifier.register_forward_pre_hook(self._fresh_input)

    @contextmanager
    def replays_hidden(self, targets: Tensor, n_replayed: int) -> Iterator[None]:
        """Hide the last ``n_replayed`` rows, of a batch with ``targets`` (B,), while it lasts."""
        if n_replayed == 0:
            yield
            return
        # solo-learn would feed its k-NN whole batches.
        knn_eval, self.knn_eval = getattr(self, "knn_eval", False), False
        self._n_replayed, self._fresh_feats = n_replayed, []
        try:
            yield
            if knn_eval:
                labels = self._fresh(targets).repeat(len(self._fresh_feats))
                known = labels != -1  # waits for the device, as solo-learn does
                feats = torch.cat(self._fresh_feats)
                self.knn.update(train_features=feats[known], train_targets=labels[known])
        finally:
            self._n_replayed, self._fresh_feats = 0, []
            self.knn_eval = knn_eval

    def _base_shared_step(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        out = super()._base_shared_step(X, self._fresh(targets))
        if self._n_replayed:
            self._fresh_feats.append(self._fresh(out["feats"]).detach())
        return out

    def _shared_step_momentum(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        return super()._shared_step_momentum(X, self._fresh(targets))

    def _fresh(self, rows: Tensor) -> Tensor:
        return rows[: len(rows) - self._n_replayed] if self._n_replayed else rows

    def _fresh_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self._fresh(rows) for rows in inputs)
