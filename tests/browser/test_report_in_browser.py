"""The report in a real browser: Debian's Chromium driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from drawn_traces import DrawnTrace, drawn_traces

import simkit as sk
from simkit.report import write_report

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright: pip install playwright"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

EVIL = "<img src=x onerror=alert(1)></script><script>window.hacked=1</script>"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
CHECKS = [{"arch": "eie", "target": "EIE, us", "verdict": "off", "error": -0.2, "source": EVIL, "reason": EVIL}]
ARCHS = ("systolic_32x32", "cnvlutin", "eie")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    traces = [*drawn_traces(), DrawnTrace(EVIL, 0.05, 0.83, 4)]
    result = sk.replay(traces, ARCHS, weights="dense")
    with pytest.MonkeyPatch.context() as patch:
        # the page's looks are tested here, not the checks, which take their time
        patch.setattr("simkit.evidence.published_rows", lambda: CHECKS)
        return write_report(result, tmp_path_factory.mktemp("report") / "report.html", title=EVIL, traces=traces)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        instance = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield instance
        instance.close()


@pytest.fixture
def open_page(browser: Any, page_file: Path) -> Iterator[Any]:
    """Open the page offline; whatever the console says or the network is asked for is a failure."""
    contexts, troubles = [], []

    def opened(**options: Any) -> Any:
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url) if request.url.startswith("http") else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector("figure[data-chart=layers] svg circle, figure[data-chart=layers] svg path")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles


def test_figures_are_there(open_page: Any) -> None:
    page = open_page()
    images = page.eval_on_selector_all(".figures img", "all => all.map(i => [i.naturalWidth, i.alt])")
    assert len(images) >= 7
    assert all(width > 100 and alt for width, alt in images)
    marks = page.locator("figure[data-chart=tradeoff] svg").last.locator("[aria-label=dot] > *")
    assert marks.count() == 4 * len(ARCHS)


def test_interactive_figure_follows_its_choices_and_tips(open_page: Any) -> None:
    page = open_page()
    chart = page.locator("figure[data-chart=layers]")
    before = chart.locator("svg").last.inner_html()
    chart.locator("select[data-choice=y]").select_option("energy")
    assert chart.locator("svg").last.inner_html() != before
    assert "energy (µJ)" in chart.locator("svg").last.text_content()
    drawing = page.locator("figure[data-chart=tradeoff] svg").last
    drawing.locator("[aria-label=dot] > *").first.hover()
    tip = drawing.locator("[aria-label=tip]")
    tip.locator("text").wait_for(timeout=5000)
    assert "design" in tip.text_content()


def test_tables_sort_by_number_and_by_keyboard(open_page: Any) -> None:
    page = open_page()
    table = page.locator("#summary table").first
    heads = table.locator("thead th").all_inner_texts()
    column = next(index for index, text in enumerate(heads) if text.startswith("energy"))
    button = table.locator("thead th").nth(column).locator("button")

    def values() -> list[float]:
        cells = table.locator(f"tbody tr td:nth-child({column + 1})")
        return [float(value) for value in cells.evaluate_all("all => all.map(c => c.dataset.value)")]

    assert values() != sorted(values())
    button.click()
    assert values() == sorted(values())
    assert table.locator("thead th").nth(column).get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert values() == sorted(values(), reverse=True)
    assert table.locator("thead th").nth(column).get_attribute("aria-sort") == "descending"


def test_untrusted_names_do_nothing(open_page: Any) -> None:
    page = open_page()
    assert page.evaluate("window.hacked") is None
    assert page.locator("h1").inner_text() == EVIL
    assert page.title() == EVIL
    assert page.locator("img[src=x]").count() == 0
    assert EVIL in page.locator("#summary").inner_text()
    assert EVIL in page.locator("figure[data-chart=layers] .legend").inner_text()


def test_no_inline_script_can_run(open_page: Any) -> None:
    page = open_page()
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    script = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
    assert "unsafe" not in script
    assert script.count("'sha256-") == page.locator("script:not([type])").count()


def test_phone_width_needs_no_sideways_scrolling(open_page: Any) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("figure[data-chart=layers] svg").last.bounding_box()["width"] <= 360
    small = page.eval_on_selector_all(
        "figure[data-chart] svg text", "all => all.map(t => t.getBoundingClientRect().height)"
    )
    assert min(height for height in small if height) >= 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_text(open_page: Any, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    ratio = page.evaluate(
        """() => {
          const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const light = colour => {
            const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const page = light(getComputedStyle(document.body).backgroundColor);
          return ["body", ".lead", "a", "th button", "figcaption", "dt", "figure[data-chart] svg"].map(where => {
            const ink = light(getComputedStyle(document.querySelector(where)).color);
            return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05); });
        }"""
    )
    assert min(ratio) >= 4.5
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_landmarks_and_headings_for_screen_readers(open_page: Any) -> None:
    page = open_page()
    assert page.locator("main, header, nav").count() == 3
    assert page.locator("html").get_attribute("lang") == "en"
    levels = page.eval_on_selector_all("h1, h2, h3", "all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    names = page.eval_on_selector_all(
        "section", "all => all.map(s => document.getElementById(s.getAttribute('aria-labelledby')))"
    )
    assert all(name is not None for name in names)
    assert page.eval_on_selector_all("select", "all => all.every(s => s.labels.length === 1)")
    targets = page.eval_on_selector_all(
        "nav a", "all => all.map(a => document.querySelector(a.getAttribute('href')) !== null)"
    )
    assert targets
    assert all(targets)
