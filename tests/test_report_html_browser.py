"""The HTML report in a real browser: sorting, themes, no sideways scrolling on a phone. Needs Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ocd_bench.report import build_table, render
from ocd_bench.results import read_run
from tests.html_pages import detailed_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(build_table(read_run(detailed_run(tmp_path_factory.mktemp("browser") / "run")), draws=300), "html")


def browse(folder: Path, html: str, *options: str) -> str:
    """The page's document after its scripts have run."""
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        "--virtual-time-budget=2000",
        "--dump-dom",
        path.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def with_script(page: str, script: str) -> str:
    return page.replace("</body>", f"<script>{script}</script></body>")


def methods(document: str) -> list[str]:
    """Row headings of the first table."""
    return re.findall(r'<th scope="row"[^>]*>([^<]*)</th>', document.split("</table>")[0])


def test_a_heading_sorts_and_rows_without_numbers_stay_last(page: str, tmp_path: Path):
    assert methods(page) == ["base", "ocd", "ocd-x5", "tent", "bn-adapt", "&lt;img src=x&gt;"]
    once = browse(tmp_path, with_script(page, "document.querySelectorAll('thead button')[1].click()"))
    assert methods(once)[:4] == ["tent", "base", "ocd", "ocd-x5"]
    assert set(methods(once)[4:]) == {"bn-adapt", "&lt;img src=x&gt;"}
    assert 'aria-sort="ascending"' in once
    twice = browse(tmp_path, with_script(page, "for(let i=0;i<2;i++)document.querySelectorAll('thead button')[1].click()"))
    assert methods(twice)[:4] == ["ocd-x5", "ocd", "base", "tent"]
    assert set(methods(twice)[4:]) == {"bn-adapt", "&lt;img src=x&gt;"}


def test_the_theme_follows_the_system_and_the_button(page: str, tmp_path: Path):
    tell = "document.title=getComputedStyle(document.body).backgroundColor+document.getElementById('theme').textContent"
    assert "<title>rgb(255, 255, 255)Dark theme</title>" in browse(tmp_path, with_script(page, tell))
    toggled = with_script(page, f"document.getElementById('theme').click();{tell}")
    assert "<title>rgb(13, 17, 23)Light theme</title>" in browse(tmp_path, toggled)
    dark = browse(tmp_path, with_script(page, tell), "--blink-settings=preferredColorScheme=0")
    assert "<title>rgb(13, 17, 23)Light theme</title>" in dark


def test_a_phone_never_scrolls_sideways(page: str, tmp_path: Path):
    tell = "parent.postMessage(document.documentElement.scrollWidth+' of '+innerWidth,'*')"
    (tmp_path / "inner.html").write_text(with_script(page, tell), encoding="utf-8")
    frame = (
        "<body><script>onmessage=e=>document.title=e.data</script>"
        '<iframe src="inner.html" style="width:390px;height:800px;border:0"></iframe></body>'
    )
    document = browse(tmp_path, frame)
    found = re.search(r"<title>(\d+) of (\d+)</title>", document)
    assert found, document[:500]
    assert int(found[1]) <= int(found[2]) <= 390
