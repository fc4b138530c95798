"""``ood.seed`` is the run's own unless given, and everything that ``dino_ood`` draws follows it."""

from __future__ import annotations

import io

import pytest
import short_runs
import torch
from lightning.pytorch import seed_everything

from solo_ood.selection.hashing import hash_int
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.schema import parse

OOD = "++method_kwargs.ood."


def selector(scorer: str = "random", **block) -> RareSelector:
    made = RareSelector(parse({"scorer": {"name": scorer, "min_samples": 2}, **block}), 2)
    made.scorer.partial_fit(torch.zeros(2, 2))
    made.queue.push(range(100))
    return made


def picks(made: RareSelector) -> tuple:
    return made.queue.draw(9), made.scorer.ood_score(torch.zeros(9, 2), indexes=torch.arange(9))


@pytest.mark.parametrize("scorer", ["random", "random-fresh"])
def test_run_seed_is_used_unless_ood_seed_is_set(scorer):
    made = {}
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        made[seed] = (
            picks(selector(scorer)),
            picks(selector(scorer)),
            picks(selector(scorer, seed=7)),
        )
    (draws, scores), (same_draws, same_scores), given = made[1]
    (other_draws, other_scores), _, given_again = made[2]
    assert draws == same_draws != other_draws
    assert torch.equal(scores, same_scores) and not torch.equal(scores, other_scores)
    assert given[0] == given_again[0] and torch.equal(given[1], given_again[1])


def test_without_a_seeded_run_it_is_0(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert selector().seed == 0


def test_a_resumed_run_keeps_the_seed_of_its_checkpoint_and_refuses_another_one():
    seed_everything(1, verbose=False)
    first, file = selector(), io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    seed_everything(2, verbose=False)
    second = selector()
    second.load_state_dict(state)
    assert second.seed == 1 and repr(picks(second)) == repr(picks(first))
    with pytest.raises(ValueError, match="made with, seed=1, got seed=2"):
        selector(seed=2).load_state_dict(state)


class SeededRows(short_runs.Rows):
    """Record the replay's seed, too."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 0:
            generator = module.replay._arguments["generator"]
            self.seeds = module.selector.seed, generator.initial_seed()


def test_every_sample_is_trained_on_though_the_loader_gives_the_same_batch(
    compose, build, loader, trainer
):
    cfg = compose(*short_runs.SOON, f"{OOD}scorer.name=random", "max_epochs=16")
    rows = SeededRows()
    seed_everything(3)
    model = build(cfg)
    trainer(max_epochs=16, overfit_batches=1, callbacks=[rows]).fit(model, loader(cfg))
    assert rows.seeds == (3, hash_int(3, 0, 0))
    replaced = [fresh for fresh, replays in zip(rows.fresh, rows.replays) if replays]
    assert len(replaced) >= 8 and all(len(fresh) == 6 for fresh in replaced)
    trained = {index for fresh in replaced for index in fresh}
    assert trained == set(rows.fresh[0]) and len(trained) == 8
