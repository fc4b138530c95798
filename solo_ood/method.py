"""``dino_ood``: solo-learn's DINO with real multi-crop and replay of rare samples. Wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from solo.methods.dino import DINO
from torch import Tensor

from solo_ood import host
from solo_ood.config import replay_rows
from solo_ood.data.tail import rare_classes, targets_of
from solo_ood.errors import message
from solo_ood.exemplars import Exemplars
from solo_ood.mixing import mix
from solo_ood.replay import CropStore, RareLoader
from solo_ood.scorers import ExemplarScorer
from solo_ood.selection import RareSelector

STATE_KEY = "solo_ood"


class DINOOOD(DINO):
    """DINO that finds the rare samples of its stream and replays them, on either host.

    The DINO step itself is the host's. It takes the host's own arguments; the block
    ``method_kwargs.ood`` (``ood`` in keyword form) configures what is added.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        setup = host.prepare(args, kwargs)
        super().__init__(*setup.args, **setup.kwargs)
        self.ood = setup.ood
        # The host pays for local crops and leaves them out of its loss: give the loss all of them.
        self.dino_loss_func.num_large_crops = self.num_crops
        host.check_local_crops(self, setup.local_crop_sizes)
        self.replay: RareLoader | CropStore | None = None
        self.exemplars: Exemplars | None = None
        self.selector: RareSelector | None = None
        self._teacher_feats: list[Tensor] = []
        self._last_batch: Sequence[Any] | None = None
        if self.ood.enabled:
            self.selector = RareSelector(self.ood, self.features_dim, self.num_classes)

    # -- set-up ------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.selector is None:
            return
        trainer = self.trainer
        self._first_step = int(self.ood.start * trainer.estimated_stepping_batches)
        loader, queue = trainer.train_dataloader, self.selector.queue
        rows = replay_rows(self.ood, self.batch_size, trainer.world_size)
        if rows == 0:
            self.replay = None
        elif self.ood.queue.store == "indexes":
            workers = self.ood.mix.num_workers
            self.replay = RareLoader(
                loader, queue, rows, workers, trainer.global_rank, trainer.world_size
            )
        elif trainer.world_size == 1:
            self.replay = CropStore(queue, rows)
        else:
            raise ValueError(
                message(
                    "ood.queue.store=crops",
                    expected="1 process, since no process holds the crops of another",
                    got=f"{trainer.world_size} processes",
                    remedy="Use ood.queue.store=indexes.",
                )
            )
        if self.ood.scorer.exemplars:
            self.exemplars = Exemplars(self.ood.scorer.exemplars, loader, self.ood.mix.num_workers)
        labels = targets_of(getattr(loader, "dataset", None))
        if labels is None and self.ood.scorer.name == "oracle" and hasattr(loader, "dataset"):
            raise ValueError(
                message(
                    "ood.scorer.name=oracle",
                    expected="labelled training data",
                    got="none with labels",
                    remedy="The oracle is a control; use ood.scorer.name=knn.",
                )
            )
        if not self.selector.rare_classes and labels is not None:
            self.selector.rare_classes = rare_classes(labels)
        self.selector.to(self.device)
        # Without BatchNorm and the like, the features of the step itself are those of eval mode.
        self._eval_pass = self.ood.scorer.feats == "eval" and host.depends_on_mode(
            host.teacher(self)
        )

    # -- the step ----------------------------------------------------------------------------------

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        self._teacher_feats.clear()
        if self.selector is None or self.trainer.global_step < self._first_step:
            loss = self._dino_step(batch, batch_idx)
            self._teacher_feats.clear()  # of a transformer they keep all its tokens alive
            return loss
        rare = self.replay.next() if self.replay is not None else None
        n_rare = 0
        if isinstance(self.replay, CropStore):
            batch = self.replay.number(batch, self.selector.queue.step)
        if rare is not None:
            rare = self.trainer.strategy.batch_to_device(rare, self.device)
            batch, n_rare = mix(batch, rare, self.ood.mix.mode), len(rare[0])
        loss = self._dino_step(batch, batch_idx)
        self._select(batch, n_rare)
        self._teacher_feats.clear()
        return loss

    def _dino_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """The host's own step; with local crops, its shared step and the paper's loss.

        DINO (Caron et al., 2021, arXiv:2104.14294), eq. 3: the mean cross-entropy over all pairs of
        a teacher's global crop and another crop of the student.
        """
        if not self.multicrop:
            return super().training_step(batch, batch_idx)
        out = super(DINO, self).training_step(batch, batch_idx)
        z = list(out.get("z", ()))  # the newer host ran the head on the global crops already
        z += [self.head(feats) for feats in out["feats"][len(z) :]]
        with torch.no_grad():
            teacher_z = out.get("momentum_z") or [
                self.momentum_head(feats) for feats in out["momentum_feats"]
            ]
        dino_loss = self.dino_loss_func(torch.cat(z), torch.cat(teacher_z))
        self.log("dino_loss", dino_loss, on_epoch=True, sync_dist=True)
        return dino_loss + out["loss"]

    def _shared_step_momentum(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        out = super()._shared_step_momentum(X, targets)
        if self.training and self.selector is not None:  # validation passes here, too
            self._teacher_feats.append(out["feats"].detach())
        return out

    def _select(self, batch: Sequence[Any], n_rare: int) -> None:
        assert self.selector is not None  # for the type checker; training_step made sure
        indexes, crops, targets = batch
        feats = self._teacher_feats
        if self._eval_pass:
            feats = host.eval_feats(self, crops[: self.num_large_crops])
        selector = self.selector
        many = self.trainer.world_size > 1
        # A function of the step, so that a resumed run looks at them at the same steps.
        if selector.queue.step % self.ood.scorer.exemplar_every == 0:
            self._look_at_exemplars(selector)
        selector.step(
            indexes,
            selector.embed(feats),
            targets,
            n_rare,
            gather=(lambda x: self.all_gather(x).flatten(0, 1)) if many else None,
            agree=_first_rank_s if many else None,
        )
        if isinstance(self.replay, CropStore) and self._last_batch is not None:
            self.replay.keep(self._last_batch)
        self._last_batch = batch if isinstance(self.replay, CropStore) else None
        # Host tensors: a device tensor would have to be copied there and waited for.
        metrics = {
            f"ood/{k}": torch.tensor(v, dtype=torch.float32) for k, v in selector.metrics().items()
        }
        self.log_dict(metrics, batch_size=len(indexes))

    def _look_at_exemplars(self, selector: RareSelector) -> None:
        """Embed the exemplars anew, if there are any: the teacher has changed."""
        if self.exemplars is None or not isinstance(selector.scorer, ExemplarScorer):
            return
        crops = self.exemplars.next()[: self.num_large_crops]
        crops = self.trainer.strategy.batch_to_device(crops, self.device)
        parts = zip(*(crop.split(self.batch_size) for crop in crops))
        feats = torch.cat([selector.embed(host.eval_feats(self, part)) for part in parts])
        if self.trainer.world_size > 1:
            feats = _first_rank_s(feats)
        if feats.isfinite().all(dim=1).any():  # otherwise the last ones stay
            selector.scorer.set_exemplars(feats)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.replay = self.exemplars = self._last_batch = None  # ends their workers
        if self.selector is not None:
            self.selector.settle()

    # -- checkpoints -------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        # The host does not save the momentum schedule's current value.
        state: dict[str, Any] = {"cur_tau": float(self.momentum_updater.cur_tau)}
        if self.selector is not None:
            state["selector"] = self.selector.state_dict()
        checkpoint[STATE_KEY] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint.get(STATE_KEY, {})  # a plain DINO checkpoint has none
        if "cur_tau" in state:
            self.momentum_updater.cur_tau = state["cur_tau"]
        if self.selector is not None and "selector" in state:
            self.selector.load_state_dict(state["selector"])


def _first_rank_s(x: Tensor) -> Tensor:
    """Return the first process's ``x``."""
    x = x.contiguous()
    torch.distributed.broadcast(x, src=0)
    return x
