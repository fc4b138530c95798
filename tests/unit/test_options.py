"""Options as dataclasses, and the command lines that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from solo_ood.benchmark.options import Data, MeasureOptions, Networks
from solo_ood.benchmark.plan import Plan
from solo_ood.benchmark.run import measure_detectors
from solo_ood.cli import COMMANDS, main
from solo_ood.cli import parse as parse_command
from solo_ood.embedding.options import ExtractConfig
from solo_ood.errors import UserError
from solo_ood.evaluation.options import EvaluateOptions
from solo_ood.options import command_line
from solo_ood.options.field import check, group, option, options_in


@dataclass(frozen=True)
class Speed:
    """A group whose defaults a command may change."""

    gears: tuple[int | None, ...] = option((1, 2), "of the box", at_least=1, words={"all": None})
    top_speed: float = option(50.0, "in km/h", above=0, at_most=300)
    quiet: bool = option(False, "make no noise")


@dataclass(frozen=True)
class Trip:
    """An option of each kind."""

    start: Path = option(help="where it begins", positional=True)
    via: tuple[str, ...] = option((), "places", name="by", metavar="PLACE")
    kind: str = option("car", lambda: "100 % of the way", choices=("car", "train"))
    seats: int | None = option(None, "at least", at_least=1)
    speed: Speed = group("how fast", partial(Speed, top_speed=80.0))
    command: str = "not an option"


def parse(*words: str, cls: type = Trip, **more: str):
    return command_line.parse(cls, words, "go", **more)


def test_values_have_the_types_of_their_fields_and_groups_no_names_on_the_command_line():
    words = "~/home --by a b --kind train --seats 3 --gears 4 all --top-speed 9.5 --quiet"
    trip = parse(*words.split(), "--by", "c")
    assert trip == Trip(
        Path.home() / "home", ("a", "b", "c"), "train", 3, Speed((4, None), 9.5, True)
    )
    assert parse("x") == Trip(Path("x")) and parse("x").speed.top_speed == 80.0
    assert parse("x", "--gears", "3").speed == Speed((3,), 80.0)  # the others' defaults stay
    assert parse("--seats", "2", "x", "--quiet").seats == 2
    assert parse("x", "--top_speed", "7", joint="_").speed.top_speed == 7


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("x --saets 3", "Unknown option: .* got --saets. Did you mean --seats?"),
        ("x --xyz=3", "Unknown option: expected one of go --help, got --xyz. Check its spelling"),
        ("x --seats 0", "--seats: expected a whole number of at least 1, got 0."),
        ("x --seats 1.5", "--seats: expected a whole number of at least 1, got 1.5"),
        ("x --seats", "--seats: expected a whole number of at least 1, got nothing"),
        ("x --gears 1 0", "--gears: expected .* at least 1 or all, got 0. .* default, 1 2."),
        ("x --gears many", "--gears: expected .* or all, got many"),
        (
            "x --top-speed 0",
            "--top-speed: expected a number above 0 and at most 300, got 0. .*default, 80.0",
        ),
        ("x --top-speed 301", "--top-speed: expected .*at most 300, got 301"),
        ("x --top-speed nan", "--top-speed: expected .*got nan"),
        ("x --kind trian", "Unknown --kind: expected one of car, train, got 'trian'. Did you mean"),
        ("x --quiet=1", "--quiet: expected no value"),
        ("x --s 1 --q", ""),  # short for the only ones that begin so
        ("--seats 3", "START: expected where it begins, got nothing. Give it, see go --help"),
        ("x y", "go: expected no more words, got y"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_remedy(words, error):
    if not error:
        trip = parse(*words.split())
        assert (trip.seats, trip.speed.quiet) == (1, True)
        return
    with pytest.raises(UserError, match=error) as caught:
        parse(*words.split())
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?"))


@pytest.mark.parametrize(
    ("trip", "error"),
    [
        (Trip(Path(), kind="tram"), "Unknown --kind"),
        (Trip(Path(), seats=0), "--seats: expected"),
        (Trip(Path(), seats=2.0), "--seats: expected a whole number"),
        (Trip(Path(), seats=True), "--seats: expected a whole number"),
        (Trip(Path(), speed=Speed((1, -1))), "--gears: .*got -1"),
        (Trip(Path(), speed=Speed(top_speed=float("inf"))), "--top-speed: .*got inf"),
    ],
)
def test_values_from_python_are_checked_by_the_same_ranges(trip, error):
    with pytest.raises(UserError, match=error):
        check(trip)
    check(Trip(Path(), speed=Speed((None, 3), top_speed=7)))


def test_help_says_defaults_once_in_groups(capsys):
    with pytest.raises(SystemExit):
        parse("--help", about="Travels.", epilog="the end:\n  as it is")
    said = capsys.readouterr().out
    assert said.startswith("usage: go START [OPTIONS]\n\nTravels.\n")
    assert "100 % of the way (default: car)" in said and "(default: 80.0)" in said
    assert "\nhow fast:\n  --gears N [N ...]" in said
    assert said.count("default") == 3 and said.endswith("the end:\n  as it is\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_its_own_name_and_a_word_of_help(name):
    known = list(options_in(COMMANDS[name].options))
    assert len({one.flag for one in known}) == len(known) > 1
    for one in known:
        assert one.about.help, one
        assert one.about.choices or one.type is bool or one.expected


def test_detect_is_an_alias_that_says_so_in_one_line(capsys):
    words = [".", "--embedder", "a", "--block", "3"]
    command, options = parse_command(["detect", *words])
    assert capsys.readouterr().err == "solo-ood detect is now called solo-ood measure.\n"
    assert (command, options) == parse_command(["measure", *words]) and options.plan.block == 3
    with pytest.raises(SystemExit, match="Unknown command: .*Did you mean 'measure'"):
        main(["mesure", *words])


def test_ranges_are_checked_before_any_data_are_read():
    nowhere = MeasureOptions(Data(Path("nowhere")), Networks(("resnet18:random",)))
    for plan, error in (
        (Plan(block=0), "--block"),
        (Plan(percentiles=(0.9, 1.0)), "--percentiles"),
    ):
        with pytest.raises(UserError, match=f"{error}: expected"):
            measure_detectors(replace(nowhere, plan=plan))
    with pytest.raises(UserError, match="--batch-size: expected a whole number of at least 1"):
        measure_detectors(replace(nowhere, embedding=ExtractConfig(batch_size=0)))
    with pytest.raises(UserError, match="no file or folder nowhere"):
        measure_detectors(nowhere)
    from solo_ood.evaluation.evaluate import evaluate

    with pytest.raises(UserError, match="--temperature: expected a number above 0, got -1"):
        evaluate(EvaluateOptions(Path("nowhere"), temperature=(-1.0,)))
