"""Score, judge, queue, learn: what happens to the teacher's features of one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_ood.config import OODConfig, release_level
from solo_ood.errors import UserError
from solo_ood.rare_queue import RareQueue
from solo_ood.rng import run_seed
from solo_ood.scorers import make_scorer
from solo_ood.scorers.base import usable
from solo_ood.threshold import make_threshold

STATE_KEY = "dino_ood"  # of a checkpoint


class RareSelector:
    """Find the rare samples of a stream of embeddings and queue their indexes.

    One call of ``step`` scores a batch, judges the scores, and only then learns from them. Replayed
    rows are scored again but never learnt: they would make rare look common. What was judged
    reaches the host one step later, copied asynchronously, so that no step waits for the device.

    This is no ``nn.Module``, and its modules are in nobody's module tree: DDP must not broadcast
    them, and a plain DINO checkpoint must load.

    Args:
        cfg: the checked configuration.
        dim: D, the feature size.
        num_classes: C, for the oracle.
    """

    def __init__(self, cfg: OODConfig, dim: int, num_classes: int = 1) -> None:
        self.cfg = cfg
        self.dim = dim
        self.seed = run_seed() if cfg.seed is None else cfg.seed
        self.scorer = make_scorer(cfg.scorer, dim, num_classes, self.seed)
        self.threshold = make_threshold(cfg.threshold)
        self.queue = RareQueue(
            cfg.queue.capacity, cfg.queue.max_replays, cfg.queue.min_age, self.seed
        )
        self.rare_classes: list[int] = cfg.rare_classes or []
        # Samples so far: judged, flagged, judged and rare, flagged and rare, not finite, replayed.
        self.counts = dict.fromkeys(
            ("judged", "flagged", "rare", "flagged_rare", "not_finite", "replayed"), 0
        )
        self._last_threshold = float("nan")
        self._pending: dict[str, Tensor] | None = None
        self._copied: torch.cuda.Event | None = None

    def to(self, device: torch.device) -> RareSelector:
        """Move the scorer and the threshold."""
        self.scorer.to(device)
        self.threshold.to(device)
        return self

    def embed(self, feats: list[Tensor]) -> Tensor:
        """Average the features (B, D) of a sample's global crops: (B, D) float32."""
        return usable(torch.stack(feats), self.cfg.scorer.normalize).mean(dim=0)

    def step(
        self,
        indexes: Tensor,
        feats: Tensor,
        targets: Tensor,
        n_rare: int = 0,
        gather: Callable[[Tensor], Tensor] | None = None,
        agree: Callable[[Tensor], Tensor] | None = None,
        most: int | None = None,
    ) -> None:
        """Take in one batch whose last ``n_rare`` rows are replays.

        Args:
            indexes: (B,) int64 dataset indexes; of replays also -1 - i, for a fresh row in the
                place of the sample i, which could not be read and leaves the queue.
            feats: (B, D) from ``embed``.
            targets: (B,) int64, -1 for unlabelled.
            n_rare: m, the same on every process.
            gather: concatenates a tensor over the processes along the rows, so that all of them
                hold the same scorer, threshold and queue; ``None`` for one process.
            agree: gives every process the first one's scores: on unlike devices they can differ in
                the last bit, and a queue that differs by one index would end in unequal batches.
            most: B of the largest batch of any process, the same on all of them: ``gather`` takes
                equal shapes only, so smaller batches are filled up. ``None`` if all are equal.

        Raises:
            UserError: for more rows than ``most``.
        """
        self.settle()
        self.queue.step += 1
        if most is not None and len(indexes) != most:
            indexes, feats, targets = _filled_up(indexes, feats, targets, most)
        batch_size = len(indexes)
        if gather is not None:
            indexes, feats, targets = gather(indexes), gather(feats), gather(targets)
        # Which rows are replays is known here, without asking the device: (processes, B) rows.
        fresh = slice(0, batch_size - n_rare)
        rare = slice(batch_size - n_rare, batch_size)

        def rows(x: Tensor, part: slice) -> Tensor:
            return x.unflatten(0, (-1, batch_size))[:, part].flatten(0, 1)

        if self.scorer.ready:
            scores = self.scorer.ood_score(feats, targets, indexes)
            if agree is not None:
                scores = agree(scores)
            fresh_scores = rows(scores, fresh)
            if self.threshold.ready:
                limit = self.threshold.threshold
                level = release_level(self.cfg)
                lower = self.threshold.quantile(level if level > 0 else -1.0)  # 0: below any score
                self._send(
                    indexes=rows(indexes, fresh),
                    targets=rows(targets, fresh),
                    scores=fresh_scores,
                    flagged=fresh_scores > limit,
                    replayed=rows(indexes, rare),
                    released=rows(scores, rare) <= lower,
                    threshold=limit,
                )
            self.threshold.update(fresh_scores)
        self.scorer.partial_fit(rows(feats, fresh), rows(targets, fresh), rows(indexes, fresh))

    def _send(self, **judged: Tensor) -> None:
        """Start copying what was judged to (pinned) host memory."""
        self._pending = {k: v.to("cpu", non_blocking=v.is_cuda) for k, v in judged.items()}
        if judged["scores"].is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def settle(self) -> None:
        """Put what the previous step judged into the queue and the counts."""
        if self._pending is None:
            return
        if self._copied is not None:
            self._copied.synchronize()  # long done: a whole step lies between
        judged, self._pending, self._copied = self._pending, None, None
        finite, flagged = judged["scores"].isfinite(), judged["flagged"]
        is_rare = torch.isin(judged["targets"], torch.tensor(self.rare_classes, dtype=torch.int64))
        for name, mask in (
            ("judged", finite),
            ("not_finite", judged["scores"].isnan() & (judged["indexes"] >= 0)),
            ("flagged", flagged),
            ("rare", is_rare & finite),
            ("flagged_rare", is_rare & flagged),
        ):
            self.counts[name] += int(mask.sum())
        # Every process has gathered these indexes, and sees the same marks of `RareLoader` in them.
        replayed = judged["replayed"]
        unreadable = replayed < 0
        self.counts["replayed"] += int((~unreadable).sum())
        self._last_threshold = float(judged["threshold"])
        self.queue.discard((-1 - replayed[unreadable]).tolist())
        self.queue.release(replayed[judged["released"]].tolist())
        self.queue.push(judged["indexes"][flagged].tolist())

    def metrics(self) -> dict[str, float]:
        """What is worth logging, all of it known on the host; rates are over the run so far."""
        count = self.counts
        metrics = {
            "queue_fill": len(self.queue) / self.queue.capacity,
            "queue_age": self.queue.mean_age,
            "replayed": float(count["replayed"]),
            "not_finite": float(count["not_finite"]),
            **self.queue.concentration(),
        }
        if count["judged"]:
            metrics["flag_rate"] = count["flagged"] / count["judged"]
            metrics["threshold"] = self._last_threshold
        if self.rare_classes and count["flagged"] and count["rare"]:
            metrics["precision"] = count["flagged_rare"] / count["flagged"]
            metrics["lift"] = metrics["precision"] * count["judged"] / count["rare"]
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped: tensors and plain Python only.

        Exactly so without replay workers; what these have drawn ahead is drawn anew.
        """
        if self._copied is not None:
            self._copied.synchronize()
        return {
            "dim": self.dim,
            "scorer_name": self.cfg.scorer.name,
            "threshold_name": self.cfg.threshold.name,
            "percentile": self.cfg.threshold.percentile,
            "seed": self.seed,
            "scorer": dict(self.scorer.state_dict()),
            "threshold": dict(self.threshold.state_dict()),
            "queue": self.queue.state_dict(),
            "counts": dict(self.counts),
            "last_threshold": self._last_threshold,
            "rare_classes": list(self.rare_classes),
            "pending": None if self._pending is None else dict(self._pending),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``.

        Raises:
            UserError: if it belongs to another feature size, scorer, threshold or seed.
        """
        seed = state.get("seed", self.seed)  # the first versions did not save it
        for what, expected, got in (
            ("feature size", self.dim, state["dim"]),
            ("scorer", self.cfg.scorer.name, state["scorer_name"]),
            ("threshold", self.cfg.threshold.name, state["threshold_name"]),
            ("percentile", self.cfg.threshold.percentile, state["percentile"]),
            ("seed", seed if self.cfg.seed is None else self.cfg.seed, seed),
        ):
            if expected != got:
                raise UserError(
                    f"checkpoint, state of the detector, {what}",
                    expected=repr(expected),
                    got=repr(got),
                    remedy="Resume with the configuration of that run, or delete the key "
                    f"{STATE_KEY!r} from the checkpoint to start its detector afresh.",
                )
        try:
            self.scorer.load_state_dict(state["scorer"])
            self.threshold.load_state_dict(state["threshold"])
        except RuntimeError as error:  # a size changed: n_reference, n
            raise UserError(
                "checkpoint, state of the detector",
                expected="the sizes of this configuration",
                got=str(error).splitlines()[-1].strip(),
                remedy="Resume with ood.scorer.n_reference and ood.threshold.n of that run.",
            ) from error
        self.seed = seed
        self.queue.load_state_dict(state["queue"])
        self.counts = dict(state["counts"])
        self._last_threshold = state["last_threshold"]
        self.rare_classes = list(state["rare_classes"])
        self._pending, self._copied = state["pending"], None


def _filled_up(
    indexes: Tensor, feats: Tensor, targets: Tensor, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``most`` rows; those without a sample come first and have the index -1.

    Their features are NaN, so nobody learns, flags or counts them.

    Raises:
        UserError: if there are more rows.
    """
    missing = most - len(indexes)
    if missing < 0:
        raise UserError(
            "batch of this process",
            expected=f"at most {most} rows, as every process was told",
            got=len(indexes),
            remedy="Set optimizer.batch_size, or the loader's batch_size, to the largest.",
        )
    return (
        F.pad(indexes, (missing, 0), value=-1),
        F.pad(feats, (0, 0, missing, 0), value=float("nan")),
        F.pad(targets, (missing, 0), value=-1),
    )
