"""Backbones compiled by ``torch.compile``: the same run, no recompilation, usable checkpoints."""

from __future__ import annotations

import json
import shutil

import pytest
import short_runs
import torch
from lightning.pytorch import Callback, seed_everything

OOD = "++method_kwargs.ood."
SOON = (*short_runs.SOON, f"{OOD}scorer.feats=eval")  # both modes of the teacher


@pytest.fixture(autouse=True)
def compiler():
    """Start without compiled code, and count anew."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


class Graphs(Callback):
    """Record after every step how many graphs were compiled and how many rows replayed so far."""

    def __init__(self):
        self.compiled, self.replayed = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        self.replayed.append(module.selector.counts["replayed"])
        self.loss = float(outputs["loss"])


def run(cfg, build, loader, trainer, backend=None, **kwargs):
    from solo_ood.host import networks

    seed_everything(1)
    model = build(cfg)
    if backend is not None:
        for net in (networks.student(model), networks.teacher(model)):
            net.compile(backend=backend)
    graphs = Graphs()
    trainer(callbacks=[graphs], **kwargs).fit(model, loader(cfg))
    model.selector.judge_pending()
    return model, graphs


@pytest.mark.parametrize("mode", ["replace", pytest.param("append", marks=pytest.mark.long)])
def test_compiled_run_is_the_same_and_compiles_no_step_anew(mode, compose, build, loader, trainer):
    cfg = compose(*SOON, f"{OOD}mix.mode={mode}")
    plain, _ = run(cfg, build, loader, trainer, max_steps=12)
    model, graphs = run(cfg, build, loader, trainer, backend="eager", max_steps=12)
    assert model.selector.counts == plain.selector.counts
    assert graphs.replayed[-1] > 0
    assert list(model.selector.queue) == list(plain.selector.queue)
    mine, theirs = model.state_dict(), plain.state_dict()
    assert mine.keys() == theirs.keys()  # `compile` in place changes no key
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    # Those of the first step, student and teacher; `append` adds the grown batch's.
    after = graphs.compiled[1:]
    assert after[0] >= 3
    assert len(set(after)) == (1 if mode == "replace" else 2)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on the CPU")
def test_inductor_trains_and_replays(compose, build, loader, trainer):
    cfg = compose(*SOON)
    plain, eager = run(cfg, build, loader, trainer, fast_dev_run=1)
    _, first = run(cfg, build, loader, trainer, backend="inductor", fast_dev_run=1)
    assert first.loss == pytest.approx(eager.loss, rel=1e-3)
    torch._dynamo.utils.counters.clear()
    model, graphs = run(cfg, build, loader, trainer, backend="inductor", max_steps=12)
    counts = model.selector.counts
    assert counts["replayed"] > 0 and counts["flagged"] > 0 and counts["not_finite"] == 0
    assert len(set(graphs.compiled[1:])) == 1
    rows = model.selector.scorer.reference
    assert rows.rows[rows.filled].isfinite().all()


@pytest.fixture
def wrapped(compose, build, loader, trainer, tmp_path):
    """A checkpoint of a model whose backbones were replaced by ``torch.compile(backbone)``."""
    from solo_ood.host import installed, networks

    cfg = compose(*SOON)
    model = build(cfg)
    for name, net in list(model.named_children()):
        if net in (networks.student(model), networks.teacher(model)):
            setattr(model, name, torch.compile(net, backend="eager"))
    fitter = trainer(fast_dev_run=1)
    fitter.fit(model, loader(cfg))
    path = tmp_path / "run" / "wrapped.ckpt"
    fitter.save_checkpoint(path)
    args = {"name": cfg.name, "method": cfg.method}
    if installed.generation() == "release":
        from solo_ood.host import release

        args.update(release.method_kwargs(cfg))
    (path.parent / "args.json").write_text(json.dumps(args))
    assert any("._orig_mod." in key for key in model.state_dict())
    return cfg, model, path


@pytest.mark.parametrize("weights", ["student", "teacher"])
def test_export_of_a_wrapped_model_loads_in_a_plain_one(weights, wrapped, build, tmp_path):
    from solo_ood.host import networks
    from solo_ood.runs.export import export

    cfg, model, path = wrapped
    exported = torch.load(export(path, tmp_path / "out", weights), weights_only=True)
    plain = build(cfg)
    plain.load_state_dict(exported["state_dict"])  # strict: every key is there
    source = networks.teacher(model) if weights == "teacher" else networks.student(model)
    wanted = source._orig_mod.state_dict()
    got = networks.student(plain).state_dict()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_evaluation_of_a_wrapped_model_takes_its_weights(wrapped):
    from solo_ood.host import installed, networks

    if installed.generation() != "release":
        pytest.skip("a checkout has evaluation scripts of its own: export first")
    from solo_ood.training.release_programs import load_network

    _, model, path = wrapped
    network, _ = load_network(path, "student")
    wanted = networks.student(model)._orig_mod.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
