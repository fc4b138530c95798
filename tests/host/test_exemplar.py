"""The scorer ``exemplar``: its ridge solution, its exemplars, and training with it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from PIL import Image
from repository import NO_WIDTH
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from solo_ood.data.image_folder import image_folder
from solo_ood.errors import UserError
from solo_ood.host import installed, networks
from solo_ood.replay.exemplars import Exemplars
from solo_ood.replay.rows import paths_of, rows_by_name
from solo_ood.selection.scorers import ExemplarScorer, KNNScorer, MahalanobisScorer

D = 6
OOD, GIVEN = "++method_kwargs.ood.", "method_kwargs.ood.scorer.exemplars="


def stream(n: int, seed: int = 0, offset: float = 1.0) -> Tensor:
    """(n, D) correlated features around a mean of ``offset``."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=torch.Generator().manual_seed(9))
    return torch.randn(n, D, generator=generator) @ mixing + offset


def fitted(**kwargs) -> ExemplarScorer:
    return ExemplarScorer(D, min_samples=8, **kwargs).partial_fit(stream(200))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("ridge", [0.001, 0.05, 10.0])
def test_score_matches_sklearn_ridge_up_to_scale_and_shift(ridge, normalize):
    rows, exemplars, queries = stream(200), stream(7, seed=1, offset=2.0), stream(40, seed=2)
    scorer = fitted(ridge=ridge, normalize=normalize).set_exemplars(exemplars)
    x, e, q = (f / f.norm(dim=1, keepdim=True) if normalize else f for f in (
        rows.double(), exemplars.double(), queries.double()
    ))  # fmt: skip
    x, e, q = x.numpy(), e.mean(dim=0).numpy(), q.numpy()
    # Least squares of 0 for the stream and 1 for the mean exemplar, whatever its weight.
    penalty = len(x) * ridge * x.var(axis=0).sum()
    oracle = Ridge(penalty).fit(np.vstack((x, e)), np.r_[np.zeros(len(x)), 1.0])
    expected, scores = oracle.predict(q), scorer.ood_score(queries).numpy()
    slope, shift = np.polyfit(expected, scores, 1)
    assert slope > 0
    np.testing.assert_allclose(scores, slope * expected + shift, rtol=0, atol=1e-3 * scores.std())


def test_the_score_is_0_at_the_mean_of_the_stream_and_larger_towards_the_exemplars():
    scorer = fitted(normalize=False).set_exemplars(stream(7, seed=1, offset=3.0))
    mean, step = scorer.moments.mean, scorer.mean_exemplar - scorer.moments.mean
    away = scorer.ood_score(mean + torch.tensor([-1.0, 0.0, 1.0, 2.0])[:, None] * step)
    assert abs(away[1]) < 1e-5
    assert (away.diff() > 0).all()


def test_it_finds_what_stands_in_the_densest_region_where_a_distance_fails():
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(2000, 32, generator=generator)
    rare = torch.rand(2000, generator=generator) < 0.1
    feats[rare] *= 0.4  # close to each other and to the mean of all, but
    feats[rare, 0] += 1.5  # beside it
    feats[:, 1] += 8.0
    fit, test = slice(0, 1000), slice(1000, 2000)
    exemplar = ExemplarScorer(32).set_exemplars(feats[fit][rare[fit]][:10])
    found = {
        scorer: roc_auc_score(rare[test], scorer.partial_fit(feats[fit]).ood_score(feats[test]))
        for scorer in (KNNScorer(32), MahalanobisScorer(32), exemplar)
    }
    *distances, ours = found.values()
    assert max(distances) < 0.3
    assert ours > 0.9


def test_exemplars_can_be_set_before_or_after_the_stream_and_anew():
    first, second, queries = stream(5, seed=1), stream(5, seed=2, offset=-2), stream(9, seed=3)
    after = fitted().set_exemplars(first).set_exemplars(second)
    before = ExemplarScorer(D, min_samples=8).set_exemplars(second).partial_fit(stream(200))
    assert torch.equal(after.ood_score(queries), before.ood_score(queries))
    assert not torch.equal(
        after.ood_score(queries), fitted().set_exemplars(first).ood_score(queries)
    )
    assert torch.equal(after.fit(stream(200)).ood_score(queries), before.ood_score(queries))


def test_between_two_factorisations_the_direction_belongs_to_the_older_moments():
    scorer = ExemplarScorer(D, min_samples=8, refresh=3).set_exemplars(stream(5, seed=1))
    for part in stream(24).split(8):  # 3 updates: just factorised
        scorer.partial_fit(part)
    first, moved = scorer.ood_score(stream(4)), stream(8, seed=4, offset=5.0)
    assert torch.equal(scorer.partial_fit(moved).ood_score(stream(4)), first)
    assert not torch.equal(scorer.partial_fit(moved).partial_fit(moved).ood_score(stream(4)), first)


def test_without_exemplars_it_is_not_ready_and_says_which_are_missing():
    scorer = fitted()
    assert not scorer.ready
    with pytest.raises(UserError, match="expected exemplars, got none. Call set_exemplars"):
        scorer.ood_score(stream(3))
    scorer = ExemplarScorer(D, min_samples=8).set_exemplars(stream(3))
    assert not scorer.ready
    with pytest.raises(UserError, match="expected at least 8 learnt samples, got 0"):
        scorer.ood_score(stream(3))


def test_exemplars_that_are_not_finite_are_left_out():
    exemplars = stream(5, seed=1)
    exemplars[1, 2], exemplars[3, 0] = float("nan"), float("inf")
    dirty, clean = fitted().set_exemplars(exemplars), fitted().set_exemplars(exemplars[[0, 2, 4]])
    assert torch.equal(dirty.ood_score(stream(9)), clean.ood_score(stream(9)))
    assert dirty.n_exemplars == 3


@pytest.mark.parametrize(
    ("exemplars", "error"),
    [
        (torch.full((3, D), float("nan")), "exemplars: expected at least 1 .*, got none of 3"),
        (torch.zeros(0, D), "exemplars: expected at least 1 .*, got none of 0"),
        (torch.zeros(3, D + 1), rf"expected shape \(N, {D}\)"),
        (torch.zeros(D), rf"expected shape \(N, {D}\)"),
    ],
)
def test_exemplars_of_no_use_are_an_error_that_changes_nothing(exemplars, error):
    scorer = fitted().set_exemplars(stream(3))
    before = scorer.ood_score(stream(9))
    with pytest.raises(ValueError, match=error):
        scorer.set_exemplars(exemplars)
    assert torch.equal(scorer.ood_score(stream(9)), before)


PATHS = ("data/car/1.jpg", "data/car/2.jpg", "data/rider/1.jpg", "data/racecar/1.jpg")


def test_indexes_and_ends_of_paths_name_rows_each_once():
    given = [3, "rider/1.jpg", "car/1.jpg", 0, str(Path(PATHS[1]).absolute())]
    assert rows_by_name(given, 4, PATHS) == [0, 1, 2, 3]


def test_paths_are_those_of_the_hosts_folders_and_no_others(tmp_path, registered):
    release = installed.generation() == "release"
    loaders = import_module(f"solo.{'utils' if release else 'data'}.pretrain_dataloader")
    for name in ("car", "rider"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    expected = [tmp_path / "car" / "1.png", tmp_path / "rider" / "1.png"]
    assert list(map(Path, paths_of(image_folder(tmp_path)))) == expected
    folder = loaders.CustomDatasetWithoutLabels(tmp_path / "car")
    assert paths_of(folder) == expected[:1]
    folder.samples = [torch.zeros(3), 7]  # of a user's own data set: no pairs
    assert paths_of(folder) is None and paths_of([1, 2]) is None


@pytest.mark.parametrize(
    ("one", "paths", "error"),
    [
        (4, PATHS, r", 4: expected an index from 0 to 3"),
        (-1, PATHS, r", -1: expected an index from 0 to 3"),
        ("rider/3.jpg", PATHS, r"'rider/3.jpg': expected .*, got 0 that end like it"),
        ("1.jpg", PATHS, r"'1.jpg': .*, got 3 that end like it. Give more of its path"),
        ("acecar/1.jpg", PATHS, "got 0 that"),
        ("", PATHS, "'': expected the path .*, got 0 that"),
        (".", PATHS, "'.': expected the path .*, got 0 that"),
        ("rider/1.jpg", None, "expected an index, got a path"),
    ],
)
def test_an_exemplar_that_is_not_in_the_data_is_named(one, paths, error):
    with pytest.raises(ValueError, match=rf"ood\.scorer\.exemplars.*{error}"):
        rows_by_name([0, one], 4, paths)


class Noisy(Dataset):
    """Two noisy crops of sample i in [i, i + 1), and the number of workers."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index):
        worker = get_worker_info()
        number = torch.full((1,), 0 if worker is None else worker.num_workers)
        return index, [*(index + torch.rand(3, s, s) / 2 for s in (4, 2)), number], -1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_exemplars_are_read_in_order_and_with_fresh_augmentations(workers):
    exemplars = Exemplars([20, 3, 7], DataLoader(Noisy(), batch_size=2, num_workers=workers))
    looks = [exemplars.next()[:2] for _ in range(6)]
    for crops in looks:
        assert [crop.shape[1:] for crop in crops] == [(3, 4, 4), (3, 2, 2)]
        assert all(crop[:, 0, 0, 0].floor().tolist() == [3, 7, 20] for crop in crops)
    assert len(torch.stack([crops[0].flatten() for crops in looks]).unique(dim=0)) == 6


@pytest.mark.parametrize(
    ("train", "asked", "expected"), [(2, None, 1), (0, None, 0), (2, 0, 0), (0, 2, 1)]
)
def test_one_worker_at_most_reads_them_and_none_if_the_replay_has_none(train, asked, expected):
    loader = DataLoader(Noisy(), batch_size=2, num_workers=train)
    number = Exemplars([1, 2], loader, asked).next()[2]
    assert number.flatten().tolist() == [expected, expected]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize("loader", [DataLoader(Stream()), object()])
def test_data_that_cannot_be_read_by_index_is_an_error(loader):
    with pytest.raises(ValueError, match="exemplar: expected training data .* by index"):
        Exemplars([0], loader)


EASY = (  # few steps must be enough to tell digits apart
    "optimizer.batch_size=16",
    "augmentations.1.num_crops=0",
    "augmentations.0.rrc.crop_min_scale=0.8",
    "augmentations.0.color_jitter.prob=0.0",
    "augmentations.0.gaussian_blur.prob=0.0",
)


def test_training_queues_the_class_that_the_exemplars_show(compose, build, loader, trainer):
    plain = compose(*EASY)
    samples = loader(plain).dataset.samples
    rare = [i for i, (_, target) in enumerate(samples) if target == 6]
    exemplars = rare[::4]
    paths = ["/".join(Path(samples[i][0]).parts[-2:]) for i in exemplars[:3]]
    given = f"{GIVEN}[{','.join(map(str, paths + exemplars[3:]))}]"
    found = {}
    for block in (("ood=exemplar", given, f"{OOD}scorer.exemplar_every=10"), ("ood=random",)):
        seed_everything(1)
        cfg = compose(*EASY, NO_WIDTH, f"{OOD}rare_classes=[6]", *block)
        model = build(cfg)
        trainer(max_steps=60).fit(model, loader(cfg))
        selector = model.selector
        selector.judge_pending()
        new = [i for i in selector.queue if i not in exemplars]
        found[block[0]] = selector.metrics()["lift"], np.mean([i in rare for i in new])
    base_rate = (len(rare) - len(exemplars)) / (len(samples) - len(exemplars))
    lift, share = found["ood=exemplar"]
    assert lift > 2 * max(1.0, found["ood=random"][0])
    assert share > 2 * base_rate


VIT = ("backbone.name=vit_tiny", "+backbone.kwargs.patch_size=16", "+backbone.kwargs.img_size=32")


@pytest.mark.parametrize(
    ("backbone", "per_step"),
    [
        (("backbone.name=resnet18",), 2 + 2),
        (VIT, 2),
        ((*VIT, "+backbone.kwargs.drop_path_rate=0.1"), 2 + 2),
    ],
)
def test_only_a_teacher_that_depends_on_its_mode_costs_a_second_pass(
    backbone, per_step, compose, build, loader, trainer
):
    cfg = compose(
        "ood=exemplar", f"{GIVEN}[1,2]", f"{OOD}scorer.exemplar_every=3",
        "augmentations.1.num_crops=0", "augmentations.1.crop_size=32", *backbone,
    )  # fmt: skip
    model, passes = build(cfg), []
    networks.teacher(model).register_forward_hook(lambda net, x, y: passes.append(net.training))
    trainer(fast_dev_run=4).fit(model, loader(cfg))
    looks = 2  # at the steps 0 and 3, one pass for each of 2 crops
    assert len(passes) == 4 * per_step + 2 * looks
    assert passes.count(True) == 4 * 2


def test_exemplars_that_are_not_in_the_data_stop_the_run_before_it_trains(
    compose, build, loader, trainer
):
    cfg = compose("ood=exemplar", f"{GIVEN}[0,no/such.png]")
    model, fitter = build(cfg), trainer()
    with pytest.raises(ValueError, match="exemplars, 'no/such.png': .* got 0 that end like it"):
        fitter.fit(model, loader(cfg))
    assert fitter.global_step == 0
