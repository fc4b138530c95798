"""The detector table in all its forms, the poster's rows, and the page that shows them."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from solo_ood.benchmark import table
from solo_ood.benchmark.measure import TableRow
from solo_ood.benchmark.page import caption, classes_of, conclusion, table_of
from solo_ood.benchmark.table import METRICS
from solo_ood.data.images import Split
from solo_ood.data.rare import RareDefinition
from solo_ood.evaluation.ranking import Interval
from solo_ood.pages.page import Page

NAN = float("nan")


def row(name: str = "knn", definition: str = "person", p: float = 0.9, **changed) -> TableRow:
    values = {metric: 0.1 + number / 100 for number, metric in enumerate(METRICS)}
    metrics = {
        metric: Interval(value, value - 0.1, value + 0.1) for metric, value in values.items()
    }
    metrics |= {key: changed.pop(key) for key in list(changed) if key in METRICS}
    head = {"embedder": "net", "n_fit": 256, "n_test": 100, "repeats": 5, "threshold": 0.25}
    given = {**head, **changed}
    return TableRow(definition=definition, detector=name, percentile=p, metrics=metrics, **given)


UNKNOWN = row("random", n_fit=None, threshold=NAN, precision=Interval(NAN, NAN, NAN))


def test_the_base_rate_follows_from_every_row_of_the_poster():
    rows = table.poster_rows()
    assert len(rows) == 12 and {r.n_fit for r in rows} == {256, 1024}
    for one in rows:
        acc, p, r = (one.metrics[name].value for name in ("accuracy", "precision", "recall"))
        base = (1 - acc) / (1 - r + r * (1 / p - 1))
        assert base == pytest.approx(0.1914, abs=0.0005) == one.metrics["base_rate"].value


def test_the_posters_detector_is_a_random_one():
    for one in table.poster_rows():
        found = {name: interval.value for name, interval in one.metrics.items()}
        p, r = found["precision"], found["recall"]
        assert 0.85 < found["lift"] < 1.10 and found["lift"] == pytest.approx(p / 0.1914)
        assert found["f1"] == pytest.approx(2 * p * r / (p + r), abs=0.0003)
        assert found["flag_rate"] == pytest.approx(r * 0.1914 / p) and found["flag_rate"] < 0.26
        assert r < found["recall_ceiling"] <= 1
        assert np.isnan([found["auroc"], found["ap"], found["fpr95"]]).all()


def test_csv_and_json_hold_every_number_and_what_is_not_known_is_null(tmp_path):
    rows = [row(), UNKNOWN]
    files = table.write(rows, tmp_path, {"command": "solo-ood measure", "plan": {"folds": 5}})
    assert [file.name for file in files] == ["table.csv", "table.json", "table.md"]
    with files[0].open(newline="") as file:
        records = list(csv.DictReader(file))

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    loaded = json.loads(files[1].read_text(), parse_constant=refuse)
    assert loaded["about"] == {"command": "solo-ood measure", "plan": {"folds": 5}}
    for one, record, found in zip(rows, records, loaded["rows"]):
        assert list(record) == list(found) and len(found) == 8 + 3 * len(METRICS)
        heads = (found["embedder"], found["rare"], found["detector"], found["n_fit"])
        assert heads == (one.embedder, one.definition, one.detector, one.n_fit)
        for name, interval in one.metrics.items():
            values = [found[name], found[f"{name}_low"], found[f"{name}_high"]]
            assert [NAN if v is None else v for v in values] == pytest.approx(interval, nan_ok=True)
        for name, value in found.items():
            assert (
                record[name] == ("" if name == "n_fit" else "nan") if value is None else str(value)
            )
    assert loaded["rows"][1]["precision"] is None and loaded["rows"][1]["threshold"] is None


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines()]


def test_markdown_has_a_line_for_each_row_and_intervals_where_they_help(tmp_path):
    table.write([row(), UNKNOWN], tmp_path, {})
    head, rule, first, second = cells((tmp_path / "table.md").read_text())
    assert head == ["Network", "Rare", "Detector", "N", "p", *METRICS.values()]
    assert {len(line) for line in (head, rule, first, second)} == {5 + len(METRICS)}
    assert first[:5] == ["net", "person", "knn", "256", "0.9"]
    assert first[head.index("Acc")] == "0.100" and second[head.index("N")] == "–"
    assert first[head.index("AUROC")] == "0.190 [0.09, 0.29]"
    assert second[head.index("P")] == "–" and second[head.index("R")] == "0.120"
    plain = cells(table.markdown([row()], intervals=False))
    assert plain[2][head.index("AUROC")] == "0.190"


def test_the_terminal_shows_each_detector_once_at_its_last_percentile():
    last = {"p": 0.8, "threshold": NAN}
    shown = [row(), row(**last, flag_rate=Interval(0.777, 0, 1)), row(n_fit=1024, **last), UNKNOWN]
    title, head, first, second, third = table.terminal(shown).splitlines()
    assert title == "net, rare: person, p = 0.8" and head.split()[:3] == ["N", "Base", "Flag"]
    assert first.split()[:4] == ["knn", "256", "0.140", "0.777"]
    assert second.split()[:4] == ["knn", "1024", "0.140", "0.150"]
    assert third.split()[:5] == ["random", "–", "0.140", "0.150", "–"]  # N and precision
    assert first.endswith("0.190 .09-.29") and head.endswith("AUROC  95% CI")
    ends = {line.index(name) + len(name) for line, name in ((head, "Base"), (first, "0.140"))}
    assert len({*ends, third.index("0.140") + 5}) == 1  # columns stay columns
    assert first.index("0.120") == third.index("0.120")  # R, beyond the unknown P


def test_no_line_in_the_terminal_is_longer_than_80_characters():
    high = {"lift": Interval(104.25, 90, 110), "auroc": Interval(0.991, 0.983, 1.0)}
    long = {
        "embedder": "vit_small_patch14_dinov2.lvd142m",
        "definition": "person+bicycle+motorcycle",
    }
    rows = [row("exemplar-logistic", n_fit=69863, **long, **high), row("exemplar-regions", **long)]
    lines = table.terminal(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-2].endswith(" 0.991 .98-1.00") and " 104.2 " in lines[-2]


def test_the_terminal_has_a_block_for_each_network_and_definition():
    shown = [row(), row("lof"), row(definition="sign"), row(embedder="other", definition="sign")]
    blocks = [block.splitlines() for block in table.terminal(shown).split("\n\n")]
    assert [len(block) for block in blocks] == [4, 3, 3]
    assert [block[0] for block in blocks] == [
        "net, rare: person, p = 0.9",
        "net, rare: sign, p = 0.9",
        "other, rare: sign, p = 0.9",
    ]


def test_names_that_contain_nan_stay_as_they_are():
    said = table.terminal([row(definition="banana", auroc=Interval(NAN, NAN, NAN))])
    assert said.startswith("net, rare: banana, p") and said.rstrip().endswith(" 0.200     –")


def test_means_are_over_the_definitions_of_the_same_detector_size_and_percentile():
    rows = [
        row(definition=name, p=p, auroc=Interval(value + p, 0, 1))
        for name, value in (("person", -0.3), ("sign", -0.1))
        for p in (0.9, 0.8)
    ]
    means = table.mean_rows(rows)
    assert [(mean.definition, mean.percentile) for mean in means] == [
        ("mean of 2", 0.9),
        ("mean of 2", 0.8),
    ]
    assert [mean.metrics["auroc"].value for mean in means] == pytest.approx([0.7, 0.6])
    assert np.isnan(means[0].metrics["auroc"][1:]).all() and means[0].n_test == 100
    assert table.mean_rows(rows[:2]) == []  # of one definition


def test_the_conclusion_is_three_lines_of_the_best_detector_and_how_sure_that_is():
    best = {"auroc": Interval(0.9, 0.85, 0.95), "f1": Interval(0.2, 0, 1)}
    flags = {"flag_rate": Interval(0.25, 0, 1), "precision": Interval(0.6, 0, 1)}
    rows = [
        row("knn", auroc=Interval(0.7, 0.6, 0.8)),
        row("exemplar", p=0.99, **best),
        row("exemplar", p=0.8, **{**best, "f1": Interval(0.5, 0, 1)}, **flags),
        row("random", n_fit=None, auroc=Interval(NAN, NAN, NAN)),
    ]
    first, second, third = conclusion(rows, ["person"])
    assert first.startswith("exemplar (net, N = 256) ranks the images best: AUROC")
    assert "0.900 [0.85, 0.95]" in first and first.endswith("Rare: person.")
    assert second.startswith(
        "At p = 0.8, its best F1, it flags 25.0% of the images; 60.0% of those are rare"
    )
    assert third.startswith("Next is knn (net, N = 256) with 0.700 [0.60, 0.80]: ")
    assert "do not overlap" in third
    rows[0] = row("knn", auroc=Interval(0.8, 0.7, 0.86))
    assert "overlap, so the order of the two may be chance" in conclusion(rows, ["person"])[2]
    assert "No other detector" in conclusion(rows[1:], ["person"])[2]
    assert len(conclusion(rows[3:], ["person"])) == 1  # none could be ranked


def test_captions_name_the_classes_of_labels_and_how_much_of_each_rare_one():
    shares = np.array([[0.7, 0.02, 0.28], [1, 0, 0]], np.float32)
    paths = (Path("a.jpg"), Path("b.jpg"))
    definition = RareDefinition("rider+bus", (1, 2), 0.1, 0.1)
    pixels = Split(paths, shares, ("road", "rider", "bus"), masks=paths)
    assert caption(pixels, 0, definition) == "bus 28.0%, rider 2.0%"
    assert caption(pixels, 1, definition) == "no rider, bus"
    labels = Split(paths, np.eye(2, 3, dtype=np.float32), ("road", "rider", "bus"))
    assert [caption(labels, row, definition) for row in (0, 1)] == ["road", "rider"]
    assert classes_of(definition, labels) == "rider, bus"


class Parsed(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


NASTY = "<b>R&D</b> \"quoted\" <script src='http://a.b/c.js'>"


@pytest.fixture
def page(tmp_path) -> str:
    """The HTML of a page with every kind of part, most of them with a nasty text."""
    for name in ("red.png", "red.jpg"):
        Image.new("RGB", (5, 4), "red").save(tmp_path / name)
    made = Page(NASTY, [NASTY], ["Lift"])
    for add in (made.heading, made.text, made.code):
        add(NASTY)
    made.listing([NASTY, "two"])
    made.table(table_of([row(definition=NASTY), UNKNOWN], NASTY))
    made.picture(tmp_path / "red.png", NASTY)
    made.picture(tmp_path / "red.jpg", "a photograph")
    return made.save(tmp_path / "report.html").read_text()


def test_a_page_needs_no_other_file_and_runs_no_script_but_its_own(page):
    parsed = Parsed(page)
    names = [tag for tag, _ in parsed.tags]
    assert not {"link", "b", "iframe"} & set(names) and names.count("script") == 1
    script = re.search("<script>(.*)</script>", page, re.DOTALL)[1]
    assert "http" not in script and "import" not in script
    (policy,) = [a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]
    sources = [v for _, attrs in parsed.tags for k, v in attrs.items() if k in ("src", "href")]
    assert [source[:22] for source in sources if source[0] != "#"] == [
        "data:image/png;base64,",
        "data:image/jpeg;base64",
    ]
    style = re.search("<style>(.*)</style>", page, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style


def test_a_page_shows_every_text_as_it_was_given(page):
    parsed = Parsed(page)
    # Title, 2 headings, conclusion, link, text, code, list, caption and cell of the table, a choice
    # of its filter, caption of the picture.
    assert parsed.words.count(NASTY) == 12
    images = [attrs for tag, attrs in parsed.tags if tag == "img"]
    assert [attrs["alt"] for attrs in images] == [NASTY, "a photograph"]
    assert [tag for tag, _ in parsed.tags].count("tr") == 3
    assert [tag for tag, _ in parsed.tags].count("td") == 2 * (5 + len(METRICS))


def test_a_picture_on_a_page_is_the_file_byte_for_byte(page, tmp_path):
    sources = [attrs["src"] for tag, attrs in Parsed(page).tags if tag == "img"]
    for source, name in zip(sources, ("red.png", "red.jpg")):
        assert base64.b64decode(source.partition(",")[2]) == (tmp_path / name).read_bytes()
