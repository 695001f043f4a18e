"""The report in a real browser: Debian's Chromium driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from drawn_traces import LAYERS, TOKENS, DrawnTrace, drawn_traces

import simkit as sk
from simkit.report.page import report

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright: pip install playwright"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]

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
        patch.setattr("simkit.report.evidence.published_rows", lambda: CHECKS)
        return report(result, tmp_path_factory.mktemp("report") / "report.html", title=EVIL, traces=traces)


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


KINDS = ("speedup", "energy", "tradeoff", "time", "layers", "roofline", "map")


def drawing(page: Any, kind: str) -> Any:
    return page.locator(
        f"figure[data-chart={kind}] .canvas > svg, figure[data-chart={kind}] .canvas > figure > svg"
    ).last


def test_figures_are_there(open_page: Any) -> None:
    page = open_page()
    assert page.eval_on_selector_all("figure[data-chart]", "all => all.map(f => f.dataset.chart)") == list(KINDS)
    runs = 4 * len(ARCHS)
    assert drawing(page, "tradeoff").locator("[aria-label=dot] > *").count() == runs
    assert drawing(page, "speedup").locator("[aria-label=bar] > *").count() == runs
    assert drawing(page, "energy").locator("[aria-label=bar] > *").count() > 2 * runs
    assert drawing(page, "energy").locator("[aria-label=rule] > *").count() == runs
    assert drawing(page, "time").locator("[aria-label=bar] > *").count() >= runs
    assert drawing(page, "roofline").locator("[aria-label=dot] > *").count() == 2 * 4  # two ops, four tunings
    assert drawing(page, "roofline").locator("[aria-label=line] > *").count() == 1
    assert drawing(page, "map").locator("[aria-label=cell] > *").count() == LAYERS * TOKENS // 4
    legend = page.locator("figure[data-chart=map] .canvas svg").first
    assert max(float(text) for text in legend.locator("g text").all_text_contents() if text[:1].isdigit()) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure_tips_and_has_its_table(open_page: Any, kind: str) -> None:
    page = open_page()
    marks = drawing(page, kind).locator("[aria-label=dot] > *, [aria-label=bar] > *, [aria-label=cell] > *")
    wide = [at for at in range(marks.count()) if (marks.nth(at).bounding_box() or {"width": 0})["width"] > 0]
    box = marks.nth(wide[len(wide) // 2])  # a bar from 1 to 1 has no width
    box.scroll_into_view_if_needed()
    box.hover(force=True)
    tip = drawing(page, kind).locator("[aria-label=tip]")
    tip.locator("text").wait_for(timeout=5000)
    assert ":" in tip.text_content()
    figure = page.locator(f"figure[data-chart={kind}]")
    assert figure.locator("td").count() == 0
    figure.locator("summary").focus()
    page.keyboard.press("Enter")
    table = figure.locator("details table")
    table.locator("tbody tr").first.wait_for()
    assert table.locator("th").count() == table.locator("tbody tr").first.locator("td").count() >= 3
    value = page.evaluate("kind => tables[{speedup: 'runs', tradeoff: 'runs'}[kind] || kind].length", kind)
    assert 0 < table.locator("tbody tr").count() <= value
    table.locator("th button").last.click()
    values = table.locator("tbody tr td:last-child").evaluate_all("all => all.map(c => Number(c.dataset.value))")
    assert values == sorted(values)


def test_pareto_front_is_of_points_that_none_beats(open_page: Any) -> None:
    page = open_page()
    rows = [{"x": 1, "accuracy": 0.5}, {"x": 2, "accuracy": 0.4}, {"x": 3, "accuracy": 0.9}, {"x": 3, "accuracy": 0.8}]
    assert page.evaluate("rows => front(rows, 'x', 'accuracy')", rows) == [rows[0], rows[2]]


def test_layers_are_a_sortable_table(open_page: Any) -> None:
    page = open_page()
    table = page.locator("#layers table")
    assert table.locator("tbody tr").count() == 2 * 4 * len(ARCHS) * LAYERS  # two ops, four tunings
    cells = table.locator("tbody tr td:nth-child(9)")
    table.locator("th button").nth(8).click()
    values = cells.evaluate_all("all => all.map(c => Number(c.dataset.value))")
    assert table.locator("th").nth(8).inner_text().startswith("cycles")
    assert values == sorted(values)
    assert len(set(values)) > 5


def test_interactive_figure_follows_its_choices_and_tips(open_page: Any) -> None:
    page = open_page()
    chart = page.locator("figure[data-chart=layers]")
    before = chart.locator("svg").last.inner_html()
    chart.locator("select[data-choice=y]").select_option("energy")
    assert chart.locator("svg").last.inner_html() != before
    assert "energy (µJ)" in chart.locator("svg").last.text_content()
    assert chart.locator("details td").count() == 0


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
