"""The HTML report in a real browser: errors, sorting, themes, the keyboard, sideways scrolling on a phone, accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocd_bench.report import build_table, render
from ocd_bench.results import read_run
from tests.browser import ENTER, TAB, Page, window
from tests.html_pages import detailed_run

METHODS = "return [...document.querySelector('tbody').rows].map(row=>row.cells[0].textContent)"
GROUND = "return getComputedStyle(document.body).backgroundColor+document.getElementById('theme').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with window(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(build_table(read_run(detailed_run(tmp_path_factory.mktemp("browsed") / "run"))), "html")


@pytest.fixture
def page(browser: Page, html: str, tmp_path: Path) -> Page:
    """The report in a new window. Every test ends with a check that the console has no errors."""
    browser.command("Emulation.clearDeviceMetricsOverride")
    theme(browser, "light")
    browser.complaints()
    browser.open(html, tmp_path)
    yield browser
    assert browser.complaints() == []


def theme(browser: Page, name: str) -> None:
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])


def phone(browser: Page, width: int) -> None:
    browser.command("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=2, mobile=True)


def test_the_browser_reports_errors(browser: Page, tmp_path: Path):
    browser.open("<script>document.body.nothing.at.all</script><img src='https://127.0.0.1:1/x.png'>", tmp_path)
    told = " ".join(browser.complaints())
    assert "TypeError" in told
    assert "x.png" in told


def test_pictures_and_sounds_load(page: Page):
    assert page.run("return [...document.images].map(image=>image.naturalWidth>0)") == [True] * 3
    loaded = "Promise.all([...document.querySelectorAll('audio')].map(a=>new Promise(r=>{const t=()=>r(a.duration);"
    loaded += "a.readyState?t():(a.onloadedmetadata=t,a.onerror=()=>r(-1),a.load())}))).then(done)"
    assert page.wait(loaded) == [1.0, 1.0]


def test_a_heading_sorts_and_rows_without_numbers_stay_last(page: Page):
    assert page.run(METHODS) == ["base", "ocd", "ocd-x5", "tent", "<img src=x>"]
    page.run("document.querySelectorAll('thead button')[1].click()")
    assert page.run(METHODS)[:4] == ["tent", "base", "ocd", "ocd-x5"]
    assert page.run(METHODS)[4:] == ["<img src=x>"]
    assert page.run("return document.querySelectorAll('thead th')[1].ariaSort") == "ascending"
    page.run("document.querySelectorAll('thead button')[1].click()")
    assert page.run(METHODS)[:4] == ["ocd-x5", "ocd", "base", "tent"]
    assert page.run(METHODS)[4:] == ["<img src=x>"]


def test_tables_can_be_sorted_by_keyboard(page: Page):
    seen = []
    for _ in range(20):
        page.type(TAB)
        seen.append(page.run("const e=document.activeElement;return e.tagName+' '+e.textContent.slice(0,8)"))
        if seen[-1] == "BUTTON accuracy":
            break
    assert seen[0] == "BUTTON Dark the"
    assert seen[-1] == "BUTTON accuracy"
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.type(ENTER)
    assert page.run(METHODS)[0] == "tent"


SHOWN = "return [...document.querySelectorAll('tbody tr[data-m]')].filter(r=>r.offsetParent).map(r=>r.dataset.m)"
DRAWN = (
    "return [...new Set([...document.querySelectorAll('g[data-m]')].filter(g=>g.getClientRects().length).map(g=>g.dataset.m))]"
)


def test_methods_are_filtered_in_tables_and_plots_by_keyboard(page: Page):
    page.run("document.getElementById('wanted').focus()")
    page.type("x5, TENT")
    assert page.run(SHOWN) == ["ocd-x5", "tent"] * 2
    assert sorted(page.run(DRAWN)) == ["ocd-x5", "tent"]
    assert page.run("return document.getElementById('shown').textContent") == "4 rows shown"
    page.run("const f=document.getElementById('wanted');f.value='';f.oninput();document.getElementById('gains').click()")
    assert set(page.run(SHOWN)) == {"base"}, "of two seeds no interval over seeds excludes zero"
    page.run("document.getElementById('gains').click()")
    assert len(page.run(SHOWN)) == 10
    page.run("document.getElementById('costs').click()")
    headings = "return [...document.querySelectorAll('thead th')].filter(h=>h.offsetParent).map(h=>h.textContent.trim())"
    assert "fit [s]" not in page.run(headings)


def test_every_column_can_be_reached(page: Page):
    boxes = "return [...document.querySelectorAll('.scroll')]"
    boxes += ".map(b=>[b.scrollWidth<=b.clientWidth+1,b.previousElementSibling.hidden])"
    phone(page, 1280)
    assert page.wait(f"setTimeout(()=>done((()=>{{{boxes}}})()),300)") == [[True, True]] * 2
    phone(page, 390)
    assert page.wait(f"setTimeout(()=>done((()=>{{{boxes}}})()),300)") == [[False, False]] * 2
    page.run("const b=document.querySelector('.scroll');b.focus();b.scrollLeft=b.scrollWidth")
    last = "return document.querySelector('thead th:last-child').getBoundingClientRect().right<=innerWidth"
    assert page.run(last)


def test_labels_of_plots_do_not_overlap(page: Page):
    page.run("for(const d of document.querySelectorAll('details'))d.open=true")
    overlaps = """return [...document.querySelectorAll('svg')].flatMap(svg=>{
      const texts=[...svg.querySelectorAll('text')].map(t=>[t.textContent,t.getBoundingClientRect()]);
      return texts.flatMap(([a,r],i)=>texts.slice(i+1).filter(([b,q])=>Math.min(r.right,q.right)-Math.max(r.left,q.left)>1
        &&Math.min(r.bottom,q.bottom)-Math.max(r.top,q.top)>3).map(([b])=>a+' / '+b))})"""
    assert page.run(overlaps) == []


def test_the_theme_follows_the_system_and_the_button(page: Page):
    assert page.run(GROUND) == "rgb(255, 255, 255)Dark theme"
    page.run("document.getElementById('theme').click()")
    assert page.run(GROUND) == "rgb(13, 17, 23)Light theme"


def test_the_theme_follows_the_system_when_dark(browser: Page, html: str, tmp_path: Path):
    theme(browser, "dark")
    browser.open(html, tmp_path)
    assert browser.run(GROUND) == "rgb(13, 17, 23)Light theme"
    browser.run("document.getElementById('theme').click()")
    assert browser.run(GROUND) == "rgb(255, 255, 255)Dark theme"


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_never_scrolls_sideways(page: Page, width: int):
    phone(page, width)
    page.run("for(const d of document.querySelectorAll('details'))d.open=true")
    assert page.run("return innerWidth") == width
    assert page.run("return document.documentElement.scrollWidth") <= width
    outside = "return [...document.querySelectorAll('figure,svg,img,audio,pre,h1,h2,h3,p,.scroll')]"
    outside += ".filter(e=>e.getBoundingClientRect().right>innerWidth+.5).map(e=>e.tagName)"
    assert page.run(outside) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_accessibility_violation(page: Page, scheme: str, width: int):
    """axe-core checks WCAG 2 level AA. Contrasts are of the rendered colours."""
    axe = pytest.importorskip("axe_core_python")
    theme(page, scheme)
    phone(page, width)
    page.run("for(const d of document.querySelectorAll('details'))d.open=true")
    page.run((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8") + ";return 0")
    report = page.wait("axe.run().then(r=>done({bad:r.violations.map(v=>[v.id,v.nodes.map(n=>n.html)]),good:r.passes.length}))")
    assert report["bad"] == []
    assert report["good"] > 15
