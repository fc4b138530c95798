"""Score, judge, queue, learn: what happens to the teacher's features of one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_ood.errors import UserError
from solo_ood.selection.diverse import DiverseAdmission
from solo_ood.selection.exposures import Exposures
from solo_ood.selection.hashing import run_seed
from solo_ood.selection.rare_queue import RareQueue
from solo_ood.selection.saved_settings import check_resumed_settings, settings_of
from solo_ood.selection.scorers import make_scorer
from solo_ood.selection.scorers.base import normalised_or_nan
from solo_ood.selection.self_check import SelfCheck, help_warnings, replay_warning
from solo_ood.selection.threshold import make_threshold
from solo_ood.settings.schema import OODConfig, release_level

STATE_KEY = "dino_ood"  # of a checkpoint
STATE_VERSION = 2  # of the layout of what is under that key


class RareSelector:
    """Find the rare samples of a stream of embeddings and queue their indexes.

    One call of ``step`` scores a batch and only then learns from it. Replayed rows are scored again
    but never learnt: they would make rare look common. The scores reach the host one step later,
    copied asynchronously, so that no step waits for the device; they are judged there.

    This is no ``nn.Module``, and its modules are kept outside every module tree: DDP must not
    broadcast them, and a plain DINO checkpoint must load.

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
        caps = Exposures(cfg.queue.max_replays_per_run, cfg.queue.max_replays_per_epoch)
        self.queue = RareQueue(
            cfg.queue.capacity, cfg.queue.max_replays, cfg.queue.min_age, self.seed, caps
        )
        self.self_check = SelfCheck()
        distance = cfg.queue.min_distance
        self.diverse = None if distance is None else DiverseAdmission(distance)
        self.rare_classes: list[int] = cfg.rare_classes or []
        # Samples so far, `before` = while other classes were the rare ones; and steps: those that
        # could have had a replay, those that had one.
        names = ("judged", "flagged", "rare", "flagged_rare", "judged_before", "flagged_before")
        others = ("not_finite", "replayed", "replay_due", "replay_done")
        self.counts = dict.fromkeys((*names, *others), 0)
        self._pending: dict[str, Any] | None = None
        self._copied: torch.cuda.Event | None = None

    def to(self, device: torch.device) -> RareSelector:
        """Move the scorer; the threshold stays on the host."""
        self.scorer.to(device)
        return self

    def embed(self, feats: list[Tensor]) -> Tensor:
        """Average the features (B, D) of a sample's global crops: (B, D) float32."""
        return normalised_or_nan(torch.stack(feats), self.cfg.scorer.normalize).mean(dim=0)

    def step(
        self,
        indexes: Tensor,
        feats: Tensor,
        targets: Tensor,
        n_replayed: int = 0,
        gather: Callable[[Tensor], Tensor] | None = None,
        broadcast: Callable[[Tensor], Tensor] | None = None,
        padded_size: int | None = None,
    ) -> None:
        """Take in one batch whose last ``n_replayed`` rows are replays.

        Args:
            indexes: (B,) int64 dataset indexes; of replays also -1 - i, for a fresh row in the
                place of the sample i, which could not be read and leaves the queue.
            feats: (B, D) from ``embed``.
            targets: (B,) int64, -1 for unlabelled.
            n_replayed: m, the same on every process.
            gather: concatenates a tensor over the processes along the rows, so that all of them
                hold the same scorer, threshold and queue; ``None`` for one process.
            broadcast: gives every process the first one's scores: on unlike devices they can
                differ in the last bit, and a queue that differs by one index would end in unequal
                batches.
            padded_size: B of the largest batch of any process, the same on all of them: ``gather``
                takes equal shapes only, so smaller batches are padded. ``None`` if all are equal.

        Raises:
            UserError: for more rows than ``padded_size``.
        """
        self.judge_pending()
        self.queue.step += 1
        if padded_size is not None and len(indexes) != padded_size:
            indexes, feats, targets = pad_rows(indexes, feats, targets, padded_size)
        batch_size = len(indexes)
        if gather is not None:
            indexes, feats, targets = gather(indexes), gather(feats), gather(targets)
        # Which rows are replays is known here, without asking the device: (processes, B) rows.
        fresh = slice(0, batch_size - n_replayed)
        rare = slice(batch_size - n_replayed, batch_size)

        def rows(x: Tensor, part: slice) -> Tensor:
            return x.unflatten(0, (-1, batch_size))[:, part].flatten(0, 1)

        if self.scorer.ready:
            scores = self.scorer.ood_score(feats, targets, indexes)
            if broadcast is not None:
                scores = broadcast(scores)
            self._send(
                indexes=rows(indexes, fresh),
                targets=rows(targets, fresh),
                scores=rows(scores, fresh),
                replayed=rows(indexes, rare),
                replayed_scores=rows(scores, rare),
                **({} if self.diverse is None else {"looked_at": indexes, "feats": feats}),
            )
        self.scorer.partial_fit(rows(feats, fresh), rows(targets, fresh), rows(indexes, fresh))

    def set_rare_classes(self, classes: Sequence[int]) -> None:
        """Count these classes as rare from now on; precision and lift begin anew with others."""
        if {*classes} != {*self.rare_classes}:
            before = {f"{name}_before": self.counts[name] for name in ("judged", "flagged")}
            self.counts.update(before, rare=0, flagged_rare=0)
            self.self_check = SelfCheck()
        self.rare_classes = list(classes)

    def _send(self, **scored: Tensor) -> None:
        """Start copying what was scored to (pinned) host memory."""
        self._pending = {k: v.to("cpu", non_blocking=v.is_cuda) for k, v in scored.items()}
        if scored["scores"].is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def judge_pending(self) -> None:
        """Judge what the previous step scored, and update the queue and the counts."""
        if self._pending is None:
            return
        if self._copied is not None:
            self._copied.synchronize()  # long done: a whole step lies between
        scored, self._pending, self._copied = self._pending, None, None
        self._update_replayed(scored["replayed"], scored["replayed_scores"])
        scores, indexes = scored["scores"], scored["indexes"]
        self.counts["not_finite"] += int((scores.isnan() & (indexes >= 0)).sum())
        items = torch.stack((indexes, scored["targets"].to(indexes)), dim=1)
        judged, flagged = self.threshold.judge(scores, items)
        is_rare = torch.isin(judged[:, 1], torch.tensor(self.rare_classes, dtype=torch.int64))
        self.counts["judged"] += len(judged)
        masks = {"flagged": flagged, "rare": is_rare, "flagged_rare": is_rare & flagged}
        for name, mask in masks.items():
            self.counts[name] += int(mask.sum())
        self.self_check.note_flagged(judged[flagged, 0].tolist(), is_rare[flagged].tolist())
        new = [i for i in judged[flagged, 0].tolist() if i >= 0]
        if self.diverse is not None:
            if "feats" in scored:  # not in a checkpoint without them
                self.diverse.look(scored["looked_at"], scored["feats"])
            new = self.diverse.admitted(new, self.queue)
        self.queue.push(new)
        if self.diverse is not None:
            self.diverse.keep({*self.queue, *self.undecided})

    def _update_replayed(self, indexes: Tensor, scores: Tensor) -> None:
        """Count replays; remove from the queue what is no longer rare or cannot be read."""
        # Every process has gathered these indexes, and sees the same marks of `RareLoader` in them.
        unreadable = indexes < 0
        self.counts["replayed"] += int((~unreadable).sum())
        self.self_check.note_replayed(indexes[~unreadable].tolist())
        self.queue.discard((-1 - indexes[unreadable]).tolist())
        released = scores <= self.threshold.quantile(release_level(self.cfg))
        self.queue.release(indexes[released].tolist())

    @property
    def undecided(self) -> list[int]:
        """Indexes that are not judged yet and may be flagged."""
        items = self.threshold.undecided
        return items[:, 0].tolist() if len(items) else []

    def drop_changed_indexes(self, same_sample: Callable[[int], bool]) -> None:
        """Continue with data in which an index may name another sample than before.

        Samples that wait for their verdict are judged as usual; one is queued only if its index
        still names the same sample.
        """
        self.judge_pending()
        items = self.threshold.waiting
        if len(items):
            gone = torch.tensor([not same_sample(index) for index in items[:, 0].tolist()])
            items = items.clone()
            items[gone, 0] = -1
            self.threshold.replace_waiting(items)
        self.scorer.drop_changed_indexes(same_sample)

    def metrics(self) -> dict[str, float]:
        """Metrics to log, all known on the host; rates are over the run so far."""
        count = self.counts
        metrics = {
            "queue_fill": len(self.queue) / self.queue.capacity,
            "queue_age": self.queue.mean_age,
            "replayed": float(count["replayed"]),
            "not_finite": float(count["not_finite"]),
            **self.queue.replay_counts(),
        }
        if self.diverse is not None:
            metrics["turned_away"] = float(self.diverse.n_turned_away)
        if count["judged"]:
            metrics["flag_rate"] = count["flagged"] / count["judged"]
            metrics["threshold"] = self.threshold.threshold
            metrics["worst_window"] = self.threshold.worst_window
        if self.rare_classes:
            metrics.update(self.self_check.metrics(count))
        return metrics

    def warnings(self) -> list[str]:
        """Return what speaks against the replay of this run so far; [] if nothing does."""
        starved = replay_warning(self.counts)
        against = help_warnings(self.metrics(), self.cfg.scorer.name, self.queue.step)
        return [*([] if starved is None else [starved]), *against]

    def _settings(self) -> dict[str, Any]:
        return settings_of(self.cfg, self.dim, self.threshold.n, self.seed)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue as if never stopped: tensors and plain Python only.

        Exact without replay workers; what workers had drawn ahead is drawn again.
        """
        if self._copied is not None:
            self._copied.synchronize()
        return {
            "settings": self._settings(),
            "scorer": dict(self.scorer.state_dict()),
            "threshold": self.threshold.state_dict(),
            "queue": self.queue.state_dict(),
            "self_check": self.self_check.state_dict(),
            "diverse": None if self.diverse is None else self.diverse.state_dict(),
            "counts": dict(self.counts),
            "rare_classes": list(self.rare_classes),
            "pending": None if self._pending is None else dict(self._pending),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; warn of settings that differ from the saved ones.

        Raises:
            UserError: if it was made with settings that give it another meaning.
        """
        check_resumed_settings(
            state["settings"], self._settings(), STATE_KEY, seed_is_given=self.cfg.seed is not None
        )
        self.seed = state["settings"].get("seed", self.seed)
        self.scorer.load_state_dict(state["scorer"])
        self.threshold.load_state_dict(state["threshold"])
        self.queue.load_state_dict(state["queue"])
        if "self_check" in state:  # not in checkpoints of before
            self.self_check.load_state_dict(state["self_check"])
        if self.diverse is not None and state.get("diverse") is not None:
            self.diverse.load_state_dict(state["diverse"])
        self.counts.update(state["counts"])
        self.rare_classes = list(state["rare_classes"])
        if self.cfg.rare_classes is not None:
            self.set_rare_classes(self.cfg.rare_classes)
        self._pending, self._copied = state["pending"], None


def pad_rows(
    indexes: Tensor, feats: Tensor, targets: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``size`` rows; those without a sample come first and have the index -1.

    Their features are NaN, so that they are neither learnt, flagged nor counted.

    Raises:
        UserError: if there are more rows.
    """
    missing = size - len(indexes)
    if missing < 0:
        raise UserError(
            "batch of this process",
            expected=f"at most {size} rows, as on every process",
            got=len(indexes),
            remedy="Set optimizer.batch_size, or the loader's batch_size, to the largest.",
        )
    return (
        F.pad(indexes, (missing, 0), value=-1),
        F.pad(feats, (0, 0, missing, 0), value=float("nan")),
        F.pad(targets, (missing, 0), value=-1),
    )
