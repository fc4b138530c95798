"""``solo-ood report`` shows a run of either host, and figures of its own data only."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from browser import complaints, needs_browser, opened
from browser import pictures as browser_pictures
from selenium.webdriver.common.by import By
from user_run import COUNTS, pictures, train

from solo_ood.evaluation.data import facts
from solo_ood.runs.report import report

EAGER = [
    "method_kwargs.ood.scorer.min_samples=8",
    "method_kwargs.ood.threshold.n=20",
]
_RUNS = {}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pictures(root / "train", COUNTS)
    pictures(root / "val", dict.fromkeys(COUNTS, 2), seed=1)
    return root


@pytest.fixture
def trained(data, compose, build, loader, trainer, tmp_path_factory):
    """Return a function that trains one run for each set of overrides, once for this module."""

    def made(*overrides):
        if overrides not in _RUNS:
            folder = tmp_path_factory.mktemp("run")
            paths = [f"data.train_path={data / 'train'}", f"data.val_path={data / 'val'}"]
            _RUNS[overrides] = train(
                folder, compose, build, loader, trainer, *paths, *EAGER, *overrides, epochs=2
            )
        return _RUNS[overrides]

    return made


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, in which a test may write."""
    return shutil.copytree(trained(), tmp_path / "copy")


def figures(run, path, images=8, **values):
    about = {"weights": "student", "checkpoint": next(run.glob("*.ckpt")).name, "epoch": 1}
    about |= {"val": facts(path, images, 4), "train": facts(path, 50, 4)}
    return {"All": 61.5, "Many": 70.0, **values, "about": about}


def unwrapped(text):
    """The summary with each entry on one line, however wide the terminal is taken to be."""
    return text.replace("\n" + 14 * " ", " ")


def line(text, start):
    (found,) = [one for one in text.splitlines() if one.startswith(start)]
    return found


def test_figures_of_the_runs_own_data_are_shown_with_their_data(run, data):
    (run / "knn.json").write_text(json.dumps(figures(run, data / "val")))
    text = report(run)
    assert line(text, "k-NN, %") == "k-NN, %       All 61.5  Many 70.0  (student)"
    assert f"val: 8 images of 4 classes in {data / 'val'}" in unwrapped(text)
    assert "not evaluated" in line(text, "linear, %")


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_figures_of_other_data_are_refused(name, run, data):
    from solo_ood.data.digits import digits_lt

    own = data / "val"
    cases = [
        (figures(run, digits_lt("val"), 360), "of other data, .*digits-lt.*not of the run's"),
        ({"All": 61.5, "Many": 70.0}, "does not say of which data; evaluate again"),
        (figures(run, own, 30), f"of 30 images where {own} now holds 8"),
    ]
    for given, reason in cases:
        (run / f"{name}.json").write_text(json.dumps(given))
        text = report(run)
        assert "61.5" not in text
        label = {"knn": "k-NN, %", "linear": "linear, %"}[name]
        assert re.search(reason, line(unwrapped(text), label)), text


def test_the_main_reference_is_in_the_summary_and_all_are_on_the_page(run, data, tmp_path):
    classes = [
        {"class": name, "train_images": n, "val_images": 2, "accuracy": 50, "low": 0, "high": 100}
        for name, n in COUNTS.items()
    ]
    given = []
    for reference, all_ in (("train", 41.5), ("held-out", 71.5), ("1%", 31.5)):
        one = figures(run, data / "val", All=all_, classes=classes, reference=reference)
        one |= {"method": "knn", "weights": "teacher", "AUROC": 0.625}
        one["intervals"] = {"All": [all_ - 3, all_ + 3]}
        one["about"] |= {"reference": f"{reference}: 9 images", "k": 20}
        given.append(one)
    (run / "evaluation.json").write_text(json.dumps({"figures": given}))
    text = report(run, tmp_path / "out")
    assert line(text, "k-NN, %") == "k-NN, %       All 71.5  Many 70.0  (teacher)"
    assert "41.5" not in text and "reference held-out: 9 images" in text
    assert str(tmp_path / "out/evaluation.png") in unwrapped(text)
    page = (tmp_path / "out/report.html").read_text()
    for expected in ("41.5", "31.5", "[28.5, 34.5]", "0.625"):
        assert expected in page
    (run / "evaluation.json").unlink()
    assert "evaluation.png" not in report(run, tmp_path / "none")


def test_evaluation_json_goes_before_the_older_files(run, data):
    (run / "knn.json").write_text(json.dumps(figures(run, data / "val")))
    both = [{**figures(run, data / "val", All=all_), "method": "knn", "weights": weights}
            for weights, all_ in (("teacher", 80.0), ("student", 75.0))]  # fmt: skip
    (run / "evaluation.json").write_text(json.dumps({"figures": both}))
    text = report(run)
    assert "61.5" not in text
    assert line(text, "k-NN, %") == "k-NN, %       All 80.0  Many 70.0  (teacher)"
    both[0]["about"]["checkpoint"], both[0]["about"]["epoch"] = "older.ckpt", 3
    (run / "evaluation.json").write_text(json.dumps({"figures": both}))
    assert "(teacher, of epoch 3)" in report(run)
    both[0]["about"]["train"] = facts(data / "train", 50, 4)  # what differs stands at each figure
    (run / "evaluation.json").write_text(json.dumps({"figures": both}))
    text = unwrapped(report(run))
    assert re.search(f"teacher, .*train {data / 'train'}\\)", text), text
    assert re.search(f"student, train {data / 'val'}\\)", text), text
    assert f"train: 50 images of 4 classes in {data / 'train'}" in text
    both[0]["about"]["val"] = 3
    (run / "evaluation.json").write_text(json.dumps({"figures": both}))
    assert "does not say of which data" in report(run)


def test_report_of_a_run_with_ood_disabled(trained, tmp_path):
    text = report(trained("++method_kwargs.ood.enabled=false"), tmp_path)
    assert "detector      none (ood.enabled=false)" in text
    assert "DINO loss" in text and (tmp_path / "curves.png").is_file()


def test_run_name_with_a_slash(trained, tmp_path):
    from solo_ood.host.run_folder import find_run
    from solo_ood.runs.export import export

    run = trained("name=group/first")
    assert "DINO loss" in report(run, tmp_path)
    checkpoint = find_run(run).checkpoint
    assert checkpoint.parent == run / "group"
    assert find_run(checkpoint).folder == run
    assert export(checkpoint, tmp_path).is_file()


def test_lightnings_own_metrics_are_found(run, tmp_path):
    """A checkout logs below the folder that it was started in, under the run folder's number."""
    started = tmp_path / "project"
    moved = started / "trained_models/dino_ood/7"
    shutil.copytree(run, moved)
    args = json.loads((moved / "args.json").read_text())
    args.get("config", args)["checkpoint"]["dir"] = "trained_models"
    (moved / "args.json").write_text(json.dumps(args))
    for version in ("version_6", "version_7"):
        (started / "lightning_logs" / version).mkdir(parents=True)
    (started / "lightning_logs/version_6/metrics.csv").write_text("step,dino_loss_step\n1,4321\n")
    (moved / "metrics.csv").rename(started / "lightning_logs/version_7/metrics.csv")
    text = report(moved)
    assert f"from {started / 'lightning_logs/version_7/metrics.csv'}" in unwrapped(text)
    assert "4321" not in line(text, "DINO loss")
    (started / "lightning_logs/version_7/metrics.csv").unlink()
    assert "no metrics.csv; name it: --metrics" in report(moved)
    (moved / "csv/version_0").mkdir(parents=True)
    (moved / "csv/version_0/metrics.csv").write_text("step,dino_loss_step\n1,42\n")
    assert "42.000" in report(moved)


def test_relative_paths_count_from_where_the_run_was_started(run, data, tmp_path, monkeypatch):
    from solo_ood.host.run_folder import find_run

    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    moved = project / "trained_models/dino_ood/0"
    shutil.copytree(run, moved)
    shutil.copytree(data, project / "images")
    pictures(elsewhere / "images/train", {"car": 1})  # the wrong data, of the same name
    args = json.loads((moved / "args.json").read_text())
    config = args.get("config", args)
    config["checkpoint"]["dir"] = "./trained_models"
    config["data"].update(train_path="images/train", val_path="images/val")
    (moved / "args.json").write_text(json.dumps(args))
    monkeypatch.chdir(elsewhere)
    assert find_run(moved).image_folder("train_path") == project / "images/train"


def test_report_shows_class_names(trained, tmp_path, monkeypatch):
    from solo_ood.pages import plots

    captions = []
    sheet = plots.contact_sheet
    monkeypatch.setattr(
        plots, "contact_sheet", lambda i, c, r, t: captions.extend(c) or sheet(i, c, r, t)
    )
    text = report(trained(), tmp_path)
    assert "(rare classes cyclist)" in text
    assert captions and set(captions) <= set(COUNTS)
    assert any(name + ": " in line(text, "              by class") for name in COUNTS)


@needs_browser
def test_the_page_of_a_run_opens_in_a_browser(trained, data, tmp_path):
    run, out = trained(), tmp_path / "out"
    (out / "scores.png").parent.mkdir()
    (out / "scores.png").touch()  # of another report
    text = report(run, out)
    assert str(out / "report.html") in unwrapped(text)
    with opened(out / "report.html", tmp_path / "profile") as page:
        assert complaints(page) == []
        lines = [one.text for one in page.find_elements(By.CSS_SELECTOR, ".conclusion li")]
        assert [one.partition(":")[0] for one in lines] == ["Training", "Detector", "Evaluation"]
        assert line(text, "DINO loss")[14:] in lines[0]
        assert line(text, "flag rate")[14:40] in lines[1] and "not evaluated" in lines[2]
        shown = dict(browser_pictures(page))
        assert min(shown.values()) > 0 and len([w for w in shown.values() if w > 300]) == 2
        facts = page.find_element(By.CSS_SELECTOR, "dl.facts").text
        assert "precision" in facts and "flag rate" in facts
        table = page.find_element(By.TAG_NAME, "table")
        heads = table.find_elements(By.CSS_SELECTOR, "th button")
        assert [one.text for one in heads[:3]] == ["Class", "Rare class", "Queued"]
        heads[3].click()
        names = [row.text.split()[0] for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")]
        assert names == sorted(COUNTS, key=lambda name: -COUNTS[name])  # by images, most first
        queued = [int(one.text) for one in table.find_elements(By.CSS_SELECTOR, "td:nth-child(3)")]
        items = page.find_elements(By.CSS_SELECTOR, ".gallery li")
        assert len(items) == min(48, sum(queued)) > 0
        assert {one.text.removeprefix("rare ").split()[0] for one in items} <= set(COUNTS)
        assert all(str(data / "train") in one.text for one in items)
        items[0].find_element(By.TAG_NAME, "button").click()
        assert str(data / "train") in page.find_element(By.TAG_NAME, "dialog").text
        assert complaints(page) == []


def test_files_that_are_gone_do_not_end_the_report(trained, data, tmp_path):
    run = trained()
    whole = data / "train"
    aside = tmp_path / "aside"
    shutil.move(whole, aside)
    try:
        assert "queue" in report(run, tmp_path / "none")  # no folder any more
        pictures(whole, {"bus": 1})
        text = report(run, tmp_path / "few")
        assert "are of files that are not there any more" in text
    finally:
        shutil.rmtree(whole, ignore_errors=True)
        shutil.move(aside, whole)


def test_the_scores_picture_says_what_it_counts(trained, tmp_path, monkeypatch):
    from solo_ood.pages import plots

    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure) or path)
    text = report(trained(), tmp_path)
    rate = line(text, "flag rate").split()[2]
    texts = [
        one.get_text() for figure in seen for legend in figure.legends for one in legend.get_texts()
    ]
    assert len(texts) == 4 and texts[0].endswith("% of these scores are above it")
    assert [one.partition(":")[0] for one in texts[2:]] == ["flag rate", "lift"]  # the curves'
    note = texts[1]
    assert "\n" not in note  # a line break would be shown as its code
    assert f"over the run {rate} of" in note and "each by the threshold of its time" in note


def test_wrong_folder_suggests_the_runs_below_it(trained):
    run = trained()
    with pytest.raises(ValueError, match=f"the runs in it are .*{run.name}"):
        report(run.parent)


def test_an_export_never_replaces_the_settings_of_a_run(run, trained, tmp_path):
    """Without its own ``args.json`` a run is lost."""
    from solo_ood.cli import main

    checkpoint, settings = next(run.glob("*.ckpt")), (run / "args.json").read_text()
    other = shutil.copytree(run, tmp_path / "other")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "file").touch()
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/args.json").symlink_to(tmp_path / "gone/args.json")
    cases = [
        (run, "the folder of the checkpoint. Name another folder."),
        (tmp_path / "link", "the folder of the checkpoint. Name another folder."),
        (other, "which holds the args.json of another run. Name another folder."),
        (tmp_path / "file/out", "a folder that can be written"),
        (tmp_path / "blocked", "files that can be written over, got .*args.json"),
    ]
    for out, message in cases:
        with pytest.raises(SystemExit, match=f"^Error: OUT: expected .*{message}"):
            main(["export", str(checkpoint), str(out)])
    for folder in (run, other):
        assert (folder / "args.json").read_text() == settings
        assert len([*folder.iterdir()]) == len([*trained().iterdir()])
    for weights in ("teacher", "student"):  # of a run's folder, both into one
        main(["export", str(run), str(tmp_path / "out"), "--weights", weights])
    assert len([*(tmp_path / "out").glob("*.ckpt")]) == 2


def test_a_folder_that_cannot_be_written_costs_the_pictures_not_the_summary(run, tmp_path):
    (run / "report").touch()
    text = unwrapped(report(run))
    assert "DINO loss" in text and "queue" in text
    assert f"none: {run / 'report'} cannot be written; name another folder: --out DIR" in text
    with pytest.raises(ValueError, match="--out: expected a folder that can be written"):
        report(run, run / "report")
    assert "queue.png" in report(run, tmp_path / "there")
    (tmp_path / "other/summary.txt").mkdir(parents=True)
    with pytest.raises(ValueError, match="--out: expected files .*over, got .*summary.txt"):
        report(run, tmp_path / "other")
