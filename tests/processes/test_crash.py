"""What a run survives: full disks, signals, checkpoints of others; and that it goes on exactly."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.plugins import TorchCheckpointIO
from torch.utils.data import DataLoader, Sampler
from warm_host import SMALL, difference, straight, trained, warm_host

from solo_ood.errors import UserError
from solo_ood.files.atomic import write
from solo_ood.training.atomic_checkpoint import AtomicCheckpointIO

MB = 1_000_000


# -- the file --------------------------------------------------------------------------------------


@contextmanager
def no_file_above(n_bytes):
    """Let the system refuse longer files: an ``OSError``, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and a function that sets its size in MB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, *options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join((*options, f"size={size}m"))]
        return subprocess.run([*command, "tmpfs", folder], capture_output=True).returncode == 0

    if os.geteuid() != 0 or not mount(1):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder, lambda size: mount(size, "remount")
    subprocess.run(["umount", "--lazy", folder], check=True)


def tensors(n_bytes, value=0.0):
    return {"x": torch.full((n_bytes // 4,), value)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(tensors(100), path)
    error = r"last.ckpt: expected a folder that takes 4\.0 MB more, got File too large.*make room"
    with no_file_above(MB), pytest.raises(UserError, match=error):
        AtomicCheckpointIO().save_checkpoint(tensors(4 * MB, 1.0), path)
    assert names(tmp_path) == ["last.ckpt"]
    assert len(torch.load(path, weights_only=True)["x"]) == 25


def test_a_full_disk_leaves_the_old_checkpoint_and_its_room(small_disk):
    folder, _ = small_disk
    path = folder / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(tensors(100), path)
    with pytest.raises(UserError, match=r"got No space left on device.*auto_resume"):
        AtomicCheckpointIO().save_checkpoint(tensors(4 * MB), path)
    assert names(folder) == ["last.ckpt"]
    assert len(torch.load(path, weights_only=True)["x"]) == 25
    # What this is for: Lightning's own copies from TMPDIR and leaves half of it.
    with pytest.raises(OSError, match="No space left"):
        TorchCheckpointIO().save_checkpoint(tensors(4 * MB), path)
    with pytest.raises(RuntimeError, match="failed reading zip archive"):
        torch.load(path, weights_only=True)


def test_the_folder_for_temporary_files_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    AtomicCheckpointIO().save_checkpoint(tensors(100), tmp_path / "new/a.ckpt")
    assert names(tmp_path / "new") == ["a.ckpt"]


def test_checkpoints_get_the_permissions_of_other_files(tmp_path):
    AtomicCheckpointIO().save_checkpoint(tensors(100), tmp_path / "a.ckpt")
    (tmp_path / "other").touch()
    assert (tmp_path / "a.ckpt").stat().st_mode == (tmp_path / "other").stat().st_mode


def stuck_in_a_write(path):
    """Start a process that never comes to the end of writing ``path``; return its id."""
    ready, begun = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.fsync = lambda _: (os.write(begun, b"x"), signal.pause())
        try:
            write(memoryview(b"abc"), path)
        finally:
            os._exit(1)  # never on with the tests
    os.close(begun)  # so that a child that fails ends the reading
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return pid


def test_leftovers_of_dead_processes_go_and_files_being_written_stay(tmp_path):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(tensors(100), path)
    dead, alive = (stuck_in_a_write(path) for _ in range(2))
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
    try:
        partial = set(tmp_path.glob(".*.partial"))
        assert len(partial) == 2
        assert not [p for p in partial if p.match("*.ckpt") or "ckpt_" in p.name]
        AtomicCheckpointIO().load_checkpoint(path)
        assert len(set(tmp_path.glob(".*.partial"))) == 1
    finally:
        os.kill(alive, signal.SIGKILL)
        os.waitpid(alive, 0)
    AtomicCheckpointIO().load_checkpoint(path)
    assert names(tmp_path) == ["a.ckpt"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_off_is_a_clear_error(share, tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(tensors(MB), path)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(ValueError, match=r"a.ckpt: expected tensors.*, got a damaged file"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_trainer_with_a_way_of_its_own_keeps_it(compose, build, loader, trainer):
    class Own(TorchCheckpointIO):
        pass

    kinds = []

    class Look(Callback):
        def on_fit_start(self, trainer, module):
            kinds.append(type(trainer.strategy.checkpoint_io))

    for plugins in ([], [Own()]):
        cfg = compose(*VIT)
        trainer(callbacks=[Look()], plugins=plugins, fast_dev_run=1).fit(build(cfg), loader(cfg))
    assert kinds == [AtomicCheckpointIO, Own]


# -- going on --------------------------------------------------------------------------------------

VIT = [o for o in SMALL if "kwargs" in o or "backbone" in o or "augmentations" in o]
# A teacher temperature of its own in every epoch: resuming must not take another epoch's.
WARMUP = [
    "+method_kwargs.warmup_teacher_temperature_epochs=3",
    "method_kwargs.teacher_temperature=0.07",
]


class Record(Callback):
    """Record the samples of every step, fresh and replayed; save in one of them."""

    def __init__(self, path=None, step=None, at_epoch_end=False):
        self.path, self.step, self.at_epoch_end = path, step, at_epoch_end
        self.indexes, self.replayed, self.seen = [], [], {}

    def on_train_start(self, trainer, module):
        self.seen["start"] = state_of(module)
        step = module.selector.step

        def recorded(indexes, feats, targets, n_replayed=0, **processes):
            self.indexes.append(indexes[: len(indexes) - n_replayed].tolist())
            self.replayed.append(indexes[len(indexes) - n_replayed :].tolist())
            return step(indexes, feats, targets, n_replayed, **processes)

        module.selector.step = recorded
        # A callback's own on_train_batch_end comes before the host's, which updates the teacher.
        batch_end = module.on_train_batch_end

        def ended(*args, **kwargs):
            batch_end(*args, **kwargs)
            self.save(trainer, module, at_epoch_end=False)

        module.on_train_batch_end = ended

    def save(self, trainer, module, at_epoch_end):
        if (trainer.global_step, at_epoch_end) == (self.step, self.at_epoch_end):
            self.seen["saved"] = state_of(module)
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer, module, at_epoch_end=True)


def state_of(module):
    """Everything that training changes in the module, by value."""
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    del checkpoint["dino_ood"]["rng"]
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    return {"weights": weights, "rest": copied(checkpoint)}


def copied(state):
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return state.clone() if isinstance(state, torch.Tensor) else state


@pytest.fixture
def both(compose, build, trainer, tmp_path):
    """Train twice, through and stopped at a step; return what was recorded and the end states."""

    def trained_twice(overrides, loader, step, at_epoch_end, val=None):
        path, ends, records = tmp_path / "half.ckpt", [], []
        for seed, record in ((1, Record(path, step, at_epoch_end)), (2, Record())):
            seed_everything(seed)
            cfg = compose(*VIT, *WARMUP, "max_epochs=4", *overrides)
            model = build(cfg)
            resume = {"ckpt_path": path} if seed == 2 else {}
            fitter = trainer(callbacks=[record], max_epochs=4, limit_train_batches=3)
            fitter.fit(model, loader(cfg), val, **resume)
            assert fitter.global_step == 12
            ends.append(state_of(model))
            records.append(record)
        return records, ends

    return trained_twice


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_at_epoch_end_equals_uninterrupted_run(workers, both, loader, compose):
    """With the host's own loader: shuffled, randomly augmented, and validated in between."""
    overrides = [f"data.num_workers={workers}", "++method_kwargs.ood.mix.num_workers=0"]
    validation = DataLoader([(torch.zeros(3, 32, 32), 0)] * 4, shuffle=True)  # draws a seed, too
    (straight, resumed), ends = both(overrides, loader, 6, at_epoch_end=True, val=validation)
    assert difference(straight.seen["saved"], resumed.seen["start"]) is None
    assert straight.indexes[6:] == resumed.indexes
    assert straight.replayed[6:] == resumed.replayed
    assert sum(map(len, resumed.replayed)) > 4
    assert difference(*ends) is None


def test_resume_inside_epoch_redraws_the_rest_with_the_host_loader(both, loader):
    """The line of exact resume: the state is restored, the shuffle of the running epoch is not."""
    with pytest.warns(UserWarning, match="your dataloader is not resumable"):
        (straight, resumed), ends = both([], loader, 7, at_epoch_end=False)
    assert difference(straight.seen["saved"], resumed.seen["start"]) is None
    assert len(resumed.indexes) == 5  # what was left of the epoch, and the next one
    assert straight.indexes[7] != resumed.indexes[0]
    assert difference(*ends) is not None


class Resumable(Sampler):
    """Shuffled batches of indexes that go on where they were."""

    def __init__(self, n, size):
        self.n, self.size, self.epoch, self.position = n, size, 0, 0

    def __len__(self):
        return self.n // self.size

    def __iter__(self):
        if self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch))
        for start in range(self.position * self.size, len(self) * self.size, self.size):
            self.position = start // self.size + 1
            yield order[start : start + self.size].tolist()


class ResumableLoader(DataLoader):
    """A loader with the interface that Lightning asks for, as torchdata's has."""

    def state_dict(self):
        return {"epoch": self.batch_sampler.epoch, "position": self.batch_sampler.position}

    def load_state_dict(self, state):
        self.batch_sampler.epoch, self.batch_sampler.position = state["epoch"], state["position"]


def test_resumed_inside_an_epoch_a_resumable_loader_makes_it_exact(both, loader):
    def resumable(cfg):
        dataset = torch.utils.data.Subset(loader(cfg).dataset, range(24))
        return ResumableLoader(dataset, batch_sampler=Resumable(24, 8))

    # A scheduler that counts steps, the main branch's default, asks for the loader's length: then
    # Lightning sets the loader up before it knows the loader's state, and never loads it.
    epochs = ["+scheduler.interval=epoch"]
    (straight, resumed), ends = both(epochs, resumable, 7, at_epoch_end=False)
    assert straight.indexes[7:] == resumed.indexes
    assert straight.replayed[7:] == resumed.replayed
    assert difference(*ends) is None


# -- checkpoints of others -------------------------------------------------------------------------


def saved_by(model):
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    return checkpoint


def test_another_layout_of_the_state_is_a_clear_error(compose, build):
    model = build(compose(*VIT))
    checkpoint = saved_by(model)
    checkpoint["dino_ood"] = {"version": 3, "detector": "of the future"}
    error = (
        r"checkpoint, 'dino_ood': expected layout version 2, got 3\. .*delete the key 'dino_ood'"
    )
    with pytest.raises(ValueError, match=error):
        model.on_load_checkpoint(checkpoint)


def test_the_first_checkpoints_which_have_no_version_are_a_clear_error(compose, build):
    model = build(compose(*VIT))
    checkpoint = saved_by(model)
    del checkpoint["dino_ood"]["version"]
    with pytest.raises(ValueError, match="expected layout version 2, got 1"):
        model.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("scorer.name=random", "made with, scorer.name='knn', got scorer.name='random'"),
        ("scorer.n_reference=32", "scorer.n_reference=64, got scorer.n_reference=32"),
        ("scorer.normalize=False", "scorer.normalize=True, got scorer.normalize=False"),
        ("scorer.feats=eval", "scorer.feats='train', got scorer.feats='eval'"),
        ("threshold.name=fixed", "threshold.name='quota', got threshold.name='fixed'"),
        ("threshold.n=32", "threshold.n=8, got threshold.n=32"),
        ("threshold.percentile=0.7", "threshold.percentile=0.6, got threshold.percentile=0.7"),
    ],
)
def test_the_detector_of_another_configuration_is_a_clear_error(override, error, compose, build):
    checkpoint = saved_by(build(compose(*VIT)))
    with pytest.raises(ValueError, match=error):
        build(compose(*VIT, f"++method_kwargs.ood.{override}")).on_load_checkpoint(checkpoint)


def test_a_smaller_queue_keeps_the_newest_of_a_checkpoint(compose, build):
    model = build(compose(*VIT))
    model.selector.queue.push(range(10))
    smaller = build(compose(*VIT, "++method_kwargs.ood.queue.capacity=4"))
    smaller.on_load_checkpoint(saved_by(model))
    assert list(smaller.selector.queue) == [6, 7, 8, 9]


def test_evaluating_a_checkpoint_leaves_the_random_numbers_alone(compose, build):
    model = build(compose(*VIT))
    checkpoint = saved_by(model)
    seed_everything(7)
    before = torch.get_rng_state()
    model.on_load_checkpoint(checkpoint)  # as load_from_checkpoint does, without a trainer
    assert torch.equal(before, torch.get_rng_state())


def test_a_new_seed_counts_for_a_model_loaded_to_train_afresh(compose, build, loader, trainer):
    cfg = compose(*VIT)
    model, firsts = build(cfg), []
    checkpoint = saved_by(model)
    for seed in (5, 6):
        seed_everything(seed)
        model.on_load_checkpoint(checkpoint)
        record = Record()
        trainer(fast_dev_run=1, callbacks=[record]).fit(model, loader(cfg))
        firsts += record.indexes
    assert firsts[0] != firsts[1]


# -- the user's command ----------------------------------------------------------------------------


@pytest.fixture
def reference(tiny, registered, digits_cache):
    """The last checkpoint of a run that nobody stops."""
    return straight(*tiny, *SMALL)[0]


@pytest.fixture
def start(tiny, registered, digits_cache):
    """Start ``main_pretrain.py --config-name dino_ood`` on the small configuration."""
    return lambda folder, **limits: warm_host().start(folder, *tiny, *SMALL, **limits)


def test_sigterm_ends_the_step_and_the_last_checkpoint_goes_on(start, reference, tmp_path):
    run = start(tmp_path)
    assert run.until(run.saved), run.stderr
    run.kill(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM  # not 0, which says that the run is complete
    assert "Stopped by SIGTERM in epoch" in run.stderr
    *_, newest = run.checkpoints()
    assert not run.partial() and trained(newest)["epoch"] < 2

    again = start(tmp_path)
    assert again.wait() == 0, again.stderr
    assert Path(again.resumed_from()) == newest.relative_to(tmp_path)
    assert difference(reference, trained(again.checkpoints()[-1])) is None


def test_slurm_signal_saves_a_checkpoint_that_the_next_start_resumes(start, tmp_path):
    """Lightning's handler saves wherever the signal meets the step, then asks for a requeue."""
    slurm = {
        "SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_LOCALID": "0",
        "SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
    }  # fmt: skip
    run = start(tmp_path, **slurm)
    assert run.until(run.saved), run.stderr
    run.kill(signal.SIGUSR1)
    assert run.until(lambda: list(tmp_path.glob("hpc_ckpt_1.ckpt"))), run.stderr
    run.kill(signal.SIGTERM)  # as the scheduler does next
    assert run.wait() == 128 + signal.SIGTERM
    assert trained(tmp_path / "hpc_ckpt_1.ckpt")["global_step"] >= 3

    again = start(tmp_path, **slurm)
    assert again.wait() == 0, again.stderr
    assert trained(again.checkpoints()[-1])["global_step"] == 9


def test_no_room_for_a_checkpoint_is_a_clear_error(start, tmp_path):
    run = start(tmp_path, max_file=20 * MB)
    assert run.wait() == 1
    assert re.search(r"folder that takes \d+\.\d MB more, got File too large", run.stderr)
    assert not run.checkpoints() and not run.partial()


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(start, reference, small_disk):
    """It holds one checkpoint; the next has to be there before the last one is removed."""
    folder, resize = small_disk
    assert resize(60)
    run = start(folder)
    assert run.wait() == 1
    assert re.search(r"\d+\.\d MB more, got No space left on device", run.stderr)
    (only,) = run.checkpoints()
    assert trained(only)["epoch"] == 0 and not run.partial()

    assert resize(400)
    again = start(folder)
    assert again.wait() == 0, again.stderr
    assert Path(again.resumed_from()) == only.relative_to(folder)
    assert difference(reference, trained(again.checkpoints()[-1])) is None
