"""The HTML report: well-formed, escaped, self-contained, accessible; plots are where they should be."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ocd_bench.report import build_table, render, svg
from ocd_bench.report.style import CSS
from ocd_bench.results import read_run
from tests.html_pages import contrast, detailed_run, variables

VOID = {"meta", "br", "img", "link", "input"}


class Checker(HTMLParser):
    """Collects tags, checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(build_table(read_run(detailed_run(tmp_path_factory.mktemp("html") / "run")), draws=300), "html")


@pytest.fixture(scope="module")
def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    return checker


def test_tags_nest_and_ids_are_unique(checked: Checker):
    assert checked.open == []
    ids = [attributes["id"] for _, attributes in checked.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in checked.seen:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids


def test_nothing_is_fetched(page: str, checked: Checker):
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    for tag, attributes in checked.seen:
        assert tag not in ("img", "link", "iframe", "object", "embed")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert any(
        a.get("http-equiv") == "Content-Security-Policy" and "default-src 'none'" in a["content"] for a in checked.of("meta")
    )


def test_names_and_reasons_are_escaped(page: str, checked: Checker):
    assert "<b>bold</b>" not in page
    assert "<img" not in page
    assert any("no norm layer <b>bold</b>" in text for text in checked.text)


def test_tables_are_accessible(checked: Checker):
    tables = len(checked.of("table"))
    assert tables == 2
    assert len(checked.of("caption")) == tables
    assert {attributes.get("scope") for attributes in checked.of("th")} == {"col", "row"}
    assert checked.of("html")[0]["lang"] == "en"
    assert any(a.get("name") == "viewport" for a in checked.of("meta"))
    regions = [a for a in checked.of("div") if a.get("role") == "region"]
    assert all(a.get("tabindex") == "0" for a in regions)


def test_every_plot_is_an_image_with_a_name_and_a_caption(page: str, checked: Checker):
    plots = checked.of("svg")
    assert len(plots) == len(checked.of("figcaption")) == len(checked.of("figure"))
    assert all(a["role"] == "img" for a in plots)
    for text in re.findall(r"<svg.*?</svg>", page, re.S):
        root = ElementTree.fromstring(text)
        assert root[0].tag == "title"
        assert root[0].text
        assert root[1].text
        assert not re.search(r"\bnan\b|\binf\b", text)


def test_plots_of_what_the_cells_tell(page: str):
    for caption in (
        "accuracy: mean over seeds, 95 % interval over test samples",
        "Paired difference from base",
        "Cost against quality: accuracy",
        "Layer selection: entropy of the losses under weight noise, seed 0",
        "ocd: training, seed 0",
        "ocd: validation loss by gain, seed 0",
        "ocd: predicted against true size ρ of the weight change, seed 0",
    ):
        assert page.count(f"<figcaption>{caption}") == (1 if "seed 0" in caption else 2), caption


def test_details_of_any_other_shape_are_passed_over(tmp_path: Path):
    strange = {"history": [1, 2], "curves": {"a": "b"}, "rho": {"true": [1.0]}, "layer_entropy": [3], "gain_losses": None}
    text = render(build_table(read_run(detailed_run(tmp_path / "run", strange)), draws=300), "html")
    assert "training, seed" not in text
    assert "Layer selection and fitting" not in text


def test_colours_have_contrast_in_both_themes():
    for theme in ("light", "dark"):
        colours = variables(CSS, theme)
        for name in ("text", "quiet", "link", "better", "worse"):
            for ground in ("page", "band"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (theme, name, ground)
        for name in ("dot", "s0", "s1", "s2", "s3", "s4", "s5"):
            assert contrast(colours[name], colours["page"]) >= 3.0, (theme, name)


def test_axes():
    axis = svg.axis_over([0.0, 10.0], 100.0, 0.0)
    assert axis(axis.low) == 100.0
    assert axis(axis.high) == pytest.approx(0.0)
    assert axis.ticks() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert svg.axis_over([5.0], 0.0, 1.0).low < 5.0 < svg.axis_over([5.0], 0.0, 1.0).high
    assert svg.axis_over([0.0], 0.0, 1.0).high > 0.0
    assert svg.axis_over([3.0, 4.0], 0.0, 1.0, zero=True).low <= 0.0
    logarithmic = svg.axis_over([0.1, 1000.0], 0.0, 1.0, log=True)
    assert logarithmic(10.0) == pytest.approx(0.5)
    assert logarithmic.ticks() == [0.1, 1.0, 10.0, 100.0, 1000.0]
    assert svg.axis_over([0.15, 0.9], 0.0, 1.0, log=True).ticks() == [0.2, 0.5]
    assert not svg.axis_over([-1.0, 1.0], 0.0, 1.0, log=True).log


def test_short_labels():
    assert [svg.short(x) for x in (0, 0.25, 1500, 2e6, 1e-5)] == ["0", "0.25", "1.5k", "2e6", "1e-5"]
