"""What a study adds to a run: narrow networks, class-balanced draws, counted exposures."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from lightning.pytorch import seed_everything
from repository import NO_WIDTH

from solo_ood.errors import UserError
from solo_ood.host import installed, networks  # noqa: F401  (installed: in the mark)
from solo_ood.study.trained_rows import TrainedRows

release_only = pytest.mark.skipif(
    "installed.generation() != 'release'", reason="a checkout builds its loader itself"
)


def test_a_narrow_network_has_fewer_channels_in_every_stage(compose, build):
    model = build(compose("++backbone.kwargs.width=8", "ood=off"))
    for network in (networks.student(model), networks.teacher(model)):
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
    assert model.features_dim == 64


def test_without_a_width_the_network_is_the_hosts_own(compose, build):
    model = build(compose(NO_WIDTH, "ood=off"))
    assert networks.student(model).layer4[-1].conv2.out_channels == 512


@pytest.mark.parametrize("width", ["3", "0", "wide"])
def test_an_impossible_width_is_an_error(compose, build, width):
    with pytest.raises(UserError, match="backbone.kwargs.width"):
        build(compose(f"++backbone.kwargs.width={width}", "ood=off"))


@release_only
def test_class_balanced_draws_give_every_class_the_same_share(compose, loader):
    seed_everything(0)
    batches = list(loader(compose("++data.class_balanced=true", "optimizer.batch_size=32")))
    drawn = Counter(label for _, _, targets in batches for label in targets.tolist())
    plain = list(loader(compose("optimizer.batch_size=32")))
    assert len(batches) == len(plain)  # as many steps
    assert min(drawn.values()) > 0.5 * max(drawn.values())
    usual = Counter(label for _, _, targets in plain for label in targets.tolist())
    assert min(usual.values()) < 0.1 * max(usual.values())


@release_only
def test_class_balanced_draws_need_labels(compose, loader):
    with pytest.raises(UserError, match="class_balanced"):
        loader(compose("++data.class_balanced=true", "data.no_labels=true"))


def test_exposures_are_the_rows_that_the_student_sees(compose, build, loader, trainer):
    """Of a run with replays; all rows of all steps are counted, each where it belongs."""
    cfg = compose("++backbone.kwargs.width=2")
    seed_everything(0)
    model, data = build(cfg), loader(cfg)
    counter = TrainedRows(len(data.dataset))
    run = trainer(callbacks=[counter], limit_train_batches=20)
    run.fit(model, data)
    fresh, replayed = counter.counts
    assert int(fresh.sum() + replayed.sum()) == run.global_step * 8
    assert int(replayed.sum()) == model.selector.counts["replayed"] > 0
    targets = torch.tensor(data.dataset.targets).numpy()
    records = counter.by_class(targets, data.dataset.classes)
    assert [record["images"] for record in records] == sorted(Counter(targets).values())[::-1]
    assert sum(record["replayed"] for record in records) == int(replayed.sum())
    again = TrainedRows(len(data.dataset))
    again.load_state_dict(counter.state_dict())
    assert again.by_class(targets, data.dataset.classes) == records
