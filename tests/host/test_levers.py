"""What concentrates or spreads the replays, in short runs on the real host, and after a resume."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from scipy.spatial.distance import cosine
from short_runs import SMALL, Rows, SaveAfterFirstEpoch, loading
from torch.utils.data import IterableDataset

OOD = "++method_kwargs.ood."
BATCHES, EPOCHS = 6, 4
# The oracle flags the same few images, of which none leaves by itself.
FEW = (
    *SMALL, f"{OOD}scorer.name=oracle", f"{OOD}threshold.percentile=0.8",
    f"{OOD}queue.max_replays=null", f"max_epochs={EPOCHS}",
)  # fmt: skip
PER_EPOCH = f"{OOD}queue.max_replays_per_epoch=1"
D = 0.1  # a cosine distance that many samples of an untrained transformer have
VIT = ("backbone.name=vit_tiny", "+backbone.kwargs.patch_size=16", "+backbone.kwargs.img_size=32")
DISTANCE = f"{OOD}queue.min_distance={D}"
BAND = [f"{OOD}threshold.{key}" for key in ("percentile=0.3", "upper_percentile=0.8", "n=10")]
LINE = (f"{OOD}mix.ratio=0.5", f"{OOD}mix.ratio_end=0")
PER_RUN = f"{OOD}queue.max_replays_per_run=3"


@pytest.fixture
def train(compose, build, loader, trainer):
    """Train with overrides, from a checkpoint if there is one; return the model and its replays."""

    def trained(*overrides, callbacks=(), seed=1, ckpt_path=None):
        cfg, seen = compose(*overrides), Rows()
        seed_everything(seed)
        model, data = build(cfg), loading(loader(cfg), range(8 * BATCHES))
        fitter = trainer(max_epochs=EPOCHS, callbacks=[seen, *callbacks])
        fitter.fit(model, data, ckpt_path=ckpt_path)
        return model, seen

    return trained


def most_in_an_epoch(replays):
    """The most replays of one index in any ``BATCHES`` steps in a row."""
    windows = (replays[at : at + BATCHES] for at in range(len(replays) - BATCHES + 1))
    return max(n for window in windows for n in Counter(chain(*window)).values())


def test_capped_samples_are_replayed_less_and_fresh_ones_are_trained_on_instead(train):
    (free, loose), (model, seen), (_, last) = (
        train(*FEW, *caps) for caps in ((), [PER_EPOCH], [PER_RUN])
    )
    assert most_in_an_epoch(loose.replays) > 3 and most_in_an_epoch(seen.replays) == 1
    assert {len(rows) for rows in loose.replays[12:]} == {2}
    assert 4 < sum(map(len, seen.replays)) < sum(map(len, loose.replays))
    assert all(len(fresh) == 8 - len(rows) for fresh, rows in zip(seen.fresh, seen.replays))
    known = [m.selector.metrics()["replays_per_epoch"] for m in (free, model)]
    assert known[1] == 1 < known[0]
    assert free.selector.counts["replay_due"] and not model.selector.counts["replay_due"]
    times, capped = (Counter(chain(*one.replays)) for one in (loose, last))
    assert max(times.values()) > 5 and max(capped.values()) == 3


def test_a_cap_of_the_epoch_needs_data_with_a_length(compose, build, trainer):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(8))

    cfg = compose(*FEW, PER_EPOCH, f"{OOD}queue.store=crops", f"{OOD}start=0")
    loader = torch.utils.data.DataLoader(Stream(), batch_size=8)
    with pytest.raises(ValueError, match="expected training data with a length, .*per_run"):
        trainer(max_epochs=2).fit(build(cfg), loader)


class Admissions(Callback):
    """Record the distance of each sample that enters to the nearest one that is queued then."""

    def on_train_start(self, trainer, module):
        self.distances, latest = [], {}
        selector, queue = module.selector, module.selector.queue
        step, push = selector.step, queue.push

        def stepping(indexes, feats, *args, **kwargs):
            selector.judge_pending()  # as the step begins, before it looks at the new ones
            step(indexes, feats, *args, **kwargs)
            latest.update(zip(indexes.tolist(), feats.double().numpy()))

        def pushing(indexes):
            for index in indexes:
                if index not in queue:
                    others = [cosine(latest[index], latest[other]) for other in queue]
                    self.distances.append(min(others, default=2))
                push([index])

        selector.step, queue.push = stepping, pushing


def test_near_copies_of_what_is_queued_do_not_enter(train):
    knn = (*SMALL, *VIT, f"{OOD}queue.max_replays=null", f"max_epochs={EPOCHS}")
    loose, far = Admissions(), Admissions()
    free, _ = train(*knn, callbacks=[loose])
    model, _ = train(*knn, DISTANCE, callbacks=[far])
    assert min(loose.distances) < 0.5 * D and min(far.distances) > D - 1e-3
    assert 3 < len(model.selector.queue) < len(free.selector.queue)
    metrics = model.selector.metrics()
    assert metrics["turned_away"] > 10 and "turned_away" not in free.selector.metrics()


class Verdicts(Callback):
    """Record the scores of the fresh rows, in their order, and which of them were flagged."""

    def on_train_start(self, trainer, module):
        self.scores, self.flagged = [], []
        judge = module.selector.threshold.judge

        def judging(scores, items):
            self.scores += scores.tolist()
            judged, flagged = judge(scores, items)
            self.flagged += flagged.tolist()
            return judged, flagged

        module.selector.threshold.judge = judging


def test_of_every_block_a_band_flags_the_middle_and_not_the_top(train):
    seen = Verdicts()
    model, _ = train(*SMALL, f"max_epochs={EPOCHS}", *BAND, callbacks=[seen])
    blocks = np.array(seen.scores)[: len(seen.flagged)].reshape(-1, 10)
    ranks = blocks.argsort().argsort()
    assert np.array_equal((ranks >= 3) & (ranks < 8), np.array(seen.flagged).reshape(-1, 10))
    assert len(blocks) > 10 and model.selector.metrics()["flag_rate"] == 0.5
    assert model.selector.counts["replayed"] > 20


def test_the_ratio_goes_in_a_line_to_its_end(train):
    steps = EPOCHS * BATCHES
    model, seen = train(*SMALL, *LINE, f"max_epochs={EPOCHS}", f"{OOD}queue.max_replays=null")
    due = [round(8 * 0.5 * (steps - step) / steps) for step in range(steps)]
    counts = [len(rows) for rows in seen.replays]
    begun = next(step for step, n in enumerate(counts) if n)
    assert begun < 10 and counts[begun:] == due[begun:]
    assert {*counts[begun:]} >= {0, 1, 2}
    known = model.selector.counts
    assert known["replay_due"] == known["replay_done"] > 5  # not that the queue starved


@pytest.mark.parametrize(
    "lever", [(PER_EPOCH, PER_RUN), (DISTANCE, *BAND, *LINE)], ids=["caps", "rest"]
)
def test_a_resumed_run_equals_the_uninterrupted_one(lever, train, tmp_path):
    path = tmp_path / "first.ckpt"
    straight, whole = train(*FEW, *lever, callbacks=[SaveAfterFirstEpoch(path)])
    resumed, rest = train(*FEW, *lever, seed=2, ckpt_path=path)  # other weights, to be replaced
    assert rest.replays == whole.replays[BATCHES:]
    assert rest.fresh == whole.fresh[BATCHES:]
    assert sum(map(bool, rest.replays)) > 3
    assert straight.selector.metrics() == resumed.selector.metrics()
    mine, theirs = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
