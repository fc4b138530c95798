"""The matrix of a study, read from YAML."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from repository import ROOT

from solo_ood.errors import UserError
from solo_ood.study.plan import Cell, parse_study, read_study, shipped

TEXT = """
about: a try
data: {source: digits, imbalance: 10}
overrides: {optimizer: {lr: 0.1}, data: {num_workers: 0}}
arms:
  off: [ood=off]
  random: [ood=random]
  capped: {overrides: [ood=random], exemplars: 3}
budgets: {short: [max_epochs=1], long: [max_epochs=2]}
seeds: 2
orders: 3
against: [off]
"""


def study():
    return parse_study(yaml.safe_load(TEXT), "mine")


def changed(**values):
    return parse_study({**yaml.safe_load(TEXT), **values}, "mine")


def test_the_cells_are_all_combinations_with_whole_pairs_first():
    cells = study().cells
    assert len(cells) == len(set(cells)) == 2 * 3 * 2 * 3
    assert cells[:6] == [
        Cell(budget, arm, 0, 0)
        for budget in ("short", "long")
        for arm in ("off", "random", "capped")
    ]
    assert {cell.order for cell in cells} == set(range(6))  # none is that of another seed


def test_seeds_and_orders_go_on_from_the_first_seed():
    cells = changed(first_seed=5).cells
    assert {(cell.seed, cell.order) for cell in cells if cell.seed == 5} == {
        (5, 15), (5, 16), (5, 17),
    }  # fmt: skip
    assert {cell.seed for cell in cells} == {5, 6}
    assert not {cell.name for cell in cells} & {cell.name for cell in study().cells}


def test_the_settings_of_a_cell_are_the_studys_then_the_budgets_then_the_arms():
    settings = study().settings(Cell("long", "capped", 0, 0))
    assert settings["overrides"] == [
        "++optimizer.lr=0.1", "++data.num_workers=0", "max_epochs=2", "ood=random"
    ]  # fmt: skip
    assert settings["exemplars"] == 3 and settings["data"]["imbalance"] == 10


def test_off_needs_no_quotes():
    """YAML takes it for a bool."""
    assert list(study().arms) == ["off", "random", "capped"] and study().against == ["off"]


def test_names_of_files_are_plain():
    cell = Cell("5 epochs, lr=1/2", "class-balanced sampling", 1, 2)
    assert cell.name == "5-epochs-lr-1-2--class-balanced-sampling--seed1--order2"


@pytest.mark.parametrize(
    "values, said",
    [
        ({"sedes": 3}, "Did you mean seeds"),
        ({"seeds": 0}, "seeds: expected a whole number of at least 1"),
        ({"arms": {}}, "arms: expected a value"),
        ({"arms": {"off": "ood"}}, "arm off: expected a list of overrides"),
        ({"data": {"source": "digitz"}}, "Did you mean 'digits'"),
        ({"data": {"imbalanc": 3}}, "Did you mean imbalance"),
        ({"against": ["none"]}, "Unknown arm in against"),
        ({"arms": {"off": [], "a b": [], "a-b": []}}, "whose names differ"),
    ],
)
def test_a_mistake_is_named(values, said):
    with pytest.raises(UserError, match=said):
        changed(**values)


def test_an_unknown_study_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'digits-lt'"):
        read_study("digit-lt")


@pytest.mark.parametrize("name", shipped())
def test_the_studies_of_the_package_compose(name, registered):
    """By the training program; the two arms that change most."""
    from hydra import compose, initialize_config_module

    found = read_study(name)
    assert {"random", "off", "oracle"} <= found.arms.keys()
    with initialize_config_module("solo_ood.configs", version_base="1.2"):
        for cell in replace(found, seeds=1).cells:
            if cell.arm in ("mahalanobis", "untrained", "oracle, ratio 1/2"):
                cfg = compose(found.config, found.settings(cell)["overrides"])
                assert cfg.max_epochs > 0


def test_the_studies_are_those_of_the_help():
    from solo_ood.study.options import EPILOG

    assert [name for name in shipped() if f"\n  {name} " not in EPILOG] == []


def test_the_study_of_the_page_is_one(registered):
    from hydra import compose, initialize_config_module

    text = (ROOT / "docs/study.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    found = parse_study(yaml.safe_load(shown), "page")
    with initialize_config_module("solo_ood.configs", version_base="1.2"):
        for cell in replace(found, seeds=1).cells:
            compose(found.config, found.settings(cell)["overrides"])
