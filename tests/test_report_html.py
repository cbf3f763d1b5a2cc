"""The HTML report: well-formed, escaped, self-contained, accessible, with all plots."""

from __future__ import annotations

import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ocd_bench.merging import merge_runs
from ocd_bench.report import build_table, render, svg
from ocd_bench.report.figures import fitting_figures
from ocd_bench.report.media import arranged, gallery, spectrogram
from ocd_bench.report.png import grey_png
from ocd_bench.report.style import CSS
from ocd_bench.results import read_run
from tests.html_pages import contrast, detailed_run, variables

MEDIA = 4
"""Pictures, sounds and texts of the test page."""
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
    return render(build_table(read_run(detailed_run(tmp_path_factory.mktemp("html") / "run"))), "html")


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


def test_the_page_loads_no_other_file(page: str, checked: Checker):
    without_data = re.sub(r"data:[a-z]+/[a-z]+;base64,[A-Za-z0-9+/=]+", "data:", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", without_data)
    for tag, attributes in checked.seen:
        assert tag not in ("link", "iframe", "object", "embed")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert any(
        a.get("http-equiv") == "Content-Security-Policy" and "default-src 'none'" in a["content"] for a in checked.of("meta")
    )


def test_names_and_reasons_are_escaped(page: str, checked: Checker):
    assert "<b>bold</b>" not in page
    assert "<img src=x" not in page
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
    assert len(checked.of("figcaption")) == len(checked.of("figure")) == len(plots) + MEDIA
    assert all(a["role"] == "img" for a in plots)
    for text in re.findall(r"<svg.*?</svg>", page, re.S):
        root = ElementTree.fromstring(text)
        assert root[0].tag == "title"
        assert root[0].text
        assert root[1].text
        assert not re.search(r"\bnan\b|\binf\b", text)


def test_plots_of_the_detail_of_cells(page: str):
    for caption in (
        "accuracy: mean over seeds, 95 % interval over test samples",
        "Paired difference from base",
        "Cost against quality: accuracy",
        "Layer selection: entropy of the losses under weight noise, seed 0",
        "ocd: training, seed 0",
        "ocd: training, diffusion part of the loss, seed 0",
        "ocd: training, scale part of the loss, seed 0",
        "ocd: validation loss by gain, seed 0",
        "ocd: predicted against true size ρ of the weight change, seed 0",
    ):
        assert page.count(f"<figcaption>{caption}") == (1 if "seed 0" in caption else 2), caption
    assert "task part of the loss" not in page
    layers = re.search(r"<svg(?:(?!</svg>).)*Layer selection.*?</svg>", page, re.S)[0]
    assert layers.index(">fc1<") < layers.index(">fc2<") < layers.index(">conv1<")
    for caption in ("Expected calibration error", "Reliability"):
        assert page.count(f"<figcaption>{caption}") == 1


def test_a_tasks_own_samples_are_inside_the_page(page: str, checked: Checker):
    assert "<h3>Test samples, seed 0</h3>" in page
    pictures, players = checked.of("img"), checked.of("audio")
    assert [a["alt"] for a in pictures] == [
        "views", "0-mixture, spectrogram: 1.0 s, 0 to 4 kHz", "0-truth-1, spectrogram: 1.0 s, 0 to 4 kHz"
    ]  # fmt: skip
    assert [a["aria-label"] for a in players] == ["0, mixture", "0, truth, 1"]
    assert all(a["src"].startswith("data:audio/wav;base64,") for a in players)
    assert "joy -&gt; &lt;anger&gt;: a long line &amp; more" in page
    assert "not shown: weights.bin" in page


def test_a_spectrogram_shows_a_tone_at_its_frequency():
    time = np.arange(8000) / 8000
    levels = spectrogram(np.sin(2 * np.pi * 1000 * time))
    assert levels.shape == (128, 256)
    assert 127 - levels.mean(axis=1).argmax() == pytest.approx(1000 / 4000 * 128, abs=2)
    assert levels.max() == 255
    assert spectrogram(np.zeros(10)).max() == 0


def test_a_png_is_read_back_as_it_was():
    image = pytest.importorskip("PIL.Image")
    levels = np.random.default_rng(0).integers(0, 256, (7, 13)).astype(np.uint8)
    assert (np.asarray(image.open(io.BytesIO(grey_png(levels)))) == levels).all()


def test_samples_come_in_the_order_of_the_table():
    names = [
        "0-base-1",
        "0-mixture",
        "0-ocd-1",
        "0-ocd-x5-1",
        "0-truth-1",
        "1-mixture",
        "10-mixture",
        "2-base-1",
        "changed-ocd",
    ]
    files = arranged([Path(f"{name}.wav") for name in names], ["base", "ocd", "ocd-x5"])
    assert [path.stem for path in files] == [
        "changed-ocd", "0-mixture", "0-truth-1", "0-base-1", "0-ocd-1", "0-ocd-x5-1", "1-mixture", "2-base-1", "10-mixture"
    ]  # fmt: skip


def test_a_shared_fit_is_drawn_once(tmp_path: Path):
    group = build_table(read_run(detailed_run(tmp_path / "run"))).groups[0]
    base, ocd, ensemble, *rest = group.rows
    other = {seed: {**detail, "gain_losses": [0.5, 0.3, 0.4]} for seed, detail in ocd.details.items()}
    rows = (base, ocd, dataclasses.replace(ensemble, details=other), *rest)
    captions = [caption for caption, _ in fitting_figures(dataclasses.replace(group, rows=rows))]
    assert [caption for caption in captions if caption.startswith("ocd-x5")] == ["ocd-x5: validation loss by gain, seed 0"]
    assert sum(caption.startswith("ocd: ") for caption in captions) == 5


def test_files_that_are_too_large_or_not_sounds_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt").write_text("x" * 50)
    (tmp_path / "b.txt").write_text("y" * 80)
    (tmp_path / "c.wav").write_bytes(b"no sound")
    monkeypatch.setattr("ocd_bench.report.media.LIMIT", 100)
    found = gallery(sorted(tmp_path.iterdir()))
    assert [medium.text for medium in found.shown] == ["x" * 50]
    assert found.left_out == ("b.txt", "c.wav")


def test_figures_of_merged_runs_are_those_of_the_first_that_has_them(tmp_path: Path):
    one, two = (read_run(detailed_run(tmp_path / name)) for name in ("one", "two"))
    names = ("speech", "<mix> & 'more'", 0)
    merged = merge_runs([one, two])
    assert [path.parts[-4] for path in merged.figures[names]] == ["one"] * 5
    del one.figures[names]
    assert merge_runs([one, two]).figures[names][0].parts[-4] == "two"


def test_plugins_add_sections(tmp_path: Path):
    def sections(task: str, dataset: str, cells: list) -> list:
        return [{"Of mine": f"<p>{len(cells)} cells</p>"} if task == "images" else None]

    run = read_run(detailed_run(tmp_path / "run"))
    text = render(build_table(run, sections=sections), "html")
    assert text.count("<h3>Of mine</h3><p>10 cells</p>") == 1
    broken = build_table(run, sections=lambda **_: 1 / 0)
    assert "a plugin's sections are left out: ZeroDivisionError: division by zero" in broken.notes


def test_details_of_another_shape_are_ignored(tmp_path: Path):
    strange = {"history": [1, 2], "history_parts": {"a": "b"}, "rho": {"true": [1.0]}, "entropies": [3], "gain_losses": None}
    text = render(build_table(read_run(detailed_run(tmp_path / "run", strange))), "html")
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
    assert [svg.short(x) for x in (0, 0.25, 1500, 2e6, 1e-5)] == ["0", "0.25", "1.5k", "2M", "1e-5"]
