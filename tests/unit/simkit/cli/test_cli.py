"""The command line: data on stdout, one clear line on stderr, exit codes by kind."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simkit.cli import main


def simkit(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process: importing torch and zarr anew for each would take minutes."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["simkit", *args])
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def test_python_dash_m() -> None:
    done = subprocess.run([sys.executable, "-m", "simkit", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "0.1.0")


def error_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("simkit: error:")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return lines[0]


def test_replay_json_has_one_object_per_trace_arch_layer_op(plain_trace_path: Path) -> None:
    done = simkit("replay", str(plain_trace_path), "--arch", "cnvlutin", "--arch", "systolic_32x32", "--json")
    rows = json.loads(done.stdout)
    keys = {"trace", "arch", "layer", "op", "m", "k", "n", "macs", "effectual_macs", "cycles", "dense_cycles"}
    assert len(rows) == 4
    assert all(keys | {"latency_s", "energy_pj"} <= row.keys() for row in rows)
    assert {row["arch"] for row in rows} == {"cnvlutin", "systolic_32x32"}


def test_set_changes_a_field(plain_trace_path: Path) -> None:
    done = simkit("replay", str(plain_trace_path), "--arch", "systolic_32x32", "--set", "rows=8", "--json")
    assert json.loads(done.stdout)[0]["arch"] == "systolic_32x32[rows=8]"


@pytest.mark.parametrize(
    ("args", "code", "wanted"),
    [
        (["--arch", "cnvlutine"], 2, "did you mean 'cnvlutin'"),
        (["--arch", "no/such.yaml"], 2, "no arch file at no/such.yaml"),
        (["--arch", "cnvlutin", "--set", "lanes"], 2, "write it as field=value"),
        (["--arch", "cnvlutin", "--set", "lanes=0"], 2, "must be a whole number of at least 1"),
        (["--arch", "cnvlutin", "--table", "default_45"], 2, "did you mean 'default_45nm'"),
        (["--arch", "cnvlutin", "--op", "upp"], 2, "has no op 'upp'; known: down"),
    ],
)
def test_bad_replay_input(plain_trace_path: Path, args: list[str], code: int, wanted: str) -> None:
    assert wanted in error_line(simkit("replay", str(plain_trace_path), *args), code)


def test_arch_yaml_errors_name_file_line_and_field(plain_trace_path: Path, tmp_path: Path) -> None:
    import hwmodels
    from hwmodels.config import packaged

    text = packaged("archs")["systolic_32x32"]
    line = 1 + next(i for i, row in enumerate(text.splitlines()) if row.startswith("clock:"))
    broken = {
        "unit": (text.replace("700 MHz", "700 mm"), f":{line}: clock: '700 mm' is not a clock"),
        "unknown": (text + "clok: 1 GHz\n", "clok: unknown field; did you mean 'clock'?"),
        "duplicate": (text + "name: again\n", 'found duplicate key "name"'),
    }
    for name, (content, wanted) in broken.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(content)
        line_of_error = error_line(simkit("replay", str(plain_trace_path), "--arch", str(path)), 2)
        assert str(path) in line_of_error
        assert wanted in line_of_error
    with pytest.raises(hwmodels.InputError):
        hwmodels.arch_from_yaml("- a list\n", "x.yaml")


def test_damaged_trace_is_exit_code_3(plain_trace_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "t.zarr"
    shutil.copytree(plain_trace_path, copy)
    chunk = max((p for p in copy.rglob("*") if p.is_file() and "/c/" in p.as_posix()), key=lambda p: p.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0x10
    chunk.write_bytes(data)
    done = simkit("trace", "verify", str(copy))
    assert done.returncode == 3, done.stderr
    assert "simkit: error:" in done.stderr


def test_missing_trace(tmp_path: Path) -> None:
    error_line(simkit("replay", str(tmp_path / "none.zarr"), "--arch", "cnvlutin"), 2)


@pytest.mark.parametrize("kind", ["archs", "tables", "tunings", "models", "datasets"])
def test_ls(kind: str) -> None:
    rows = json.loads(simkit("ls", kind, "--json").stdout)
    assert rows
    assert all(row["name"] for row in rows)


def cells(printed: str, first: str) -> list[str]:
    """The cells of the line of a printed table that begins with a word."""
    line = next(line for line in printed.splitlines() if re.match(rf"│ {re.escape(first)} +│", line))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_show_arch_prints_units_and_sources() -> None:
    shown = simkit("show", "arch", "cnvlutin").stdout
    assert cells(shown, "clock")[:5] == ["clock", "606 MHz", "", "published", "chen2014dadiannao"]
    assert cells(shown, "memory.bandwidth")[1] == "25.6 GB/s"
    assert cells(shown, "static_power")[1:3] == ["1.67 W", "0.84 W .. 3.34 W"]
    assert cells(shown, "actions.mac.compute")[1] == "1 int16_mac"


def test_show_arch_sets_given_and_derived_costs_side_by_side() -> None:
    shown = simkit("show", "arch", "dadiannao").stdout
    given, derived, error = cells(shown, "area, mm2")[1:4]
    assert given == "67.7"
    assert error == f"{float(derived) / 67.7 - 1:+.0%}"
    assert cells(shown, "mac.compute")[1:4] == ["0.9244", "0.9244", "+0%"]
    assert cells(shown, "weight_buffer")[1:3] == ["edram", "16"]
    assert "warning: activation_buffer: " in shown
    facts = json.loads(simkit("show", "arch", "dadiannao", "--json").stdout)["derived"]
    totals = {row["figure"]: row for row in facts["totals"]}
    assert totals["area, mm2"]["given"] == 67.7
    assert totals["area, mm2"]["derived"] == pytest.approx(sum(part["area_mm2"] for part in facts["parts"]))
    assert totals["static power, W"]["given"] == 1.6
    assert len({source["source"] for source in facts["mac"]}) >= 2
    assert facts["why_not"] == ""


def test_show_arch_says_why_nothing_is_derived() -> None:
    assert "no derived costs: kernel 'gpu' states no structure" in simkit("show", "arch", "h100_sxm").stdout


def test_show_table_prints_a_line_each_row() -> None:
    shown = simkit("show", "table", "eie_45nm").stdout
    assert cells(shown, "eie.pe") == [
        "eie.pe",
        "11.446",
        "",
        "cycle",
        "45",
        "published",
        "han2016eie",
        "9.157 mW / 800 MHz",
    ]


def test_summaries_of_commands_fit_a_terminal() -> None:
    for group in ((), ("trace",), ("compare",)):
        listed = simkit(*group, "--help").stdout.partition("Commands:")[2]
        assert listed.strip()
        assert "..." not in listed


@pytest.mark.parametrize("command", ["demo", "tune", "record", "replay", "ls", "show", "plot", "report", "doctor"])
def test_every_command_has_help(command: str) -> None:
    done = simkit(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout


def test_doctor() -> None:
    rows = json.loads(simkit("doctor", "--json").stdout)
    assert {"GPU", "cache", "disk", "package traces"} <= {row["what"] for row in rows}


def test_plot_and_report(plain_trace_path: Path, tmp_path: Path) -> None:
    stored = tmp_path / "r.parquet"
    simkit("replay", str(plain_trace_path), "--arch", "cnvlutin", "--arch", "dadiannao", "--out", str(stored))
    figure = tmp_path / "f.pdf"
    done = simkit("plot", "speedup", str(stored), "--out", str(figure), "--style", "ieee")
    assert done.returncode == 0, done.stderr
    assert figure.read_bytes().startswith(b"%PDF")
    page = tmp_path / "r.html"
    assert simkit("report", str(stored), "--out", str(page)).returncode == 0
    html = page.read_text(encoding="utf-8")
    assert "cnvlutin" in html
    assert not re.search(r"(src|href)=.https?:", html)
    assert "did you mean" in error_line(simkit("plot", "speedups", str(stored), "--out", str(figure)), 2)
    assert ".png" in error_line(simkit("plot", "speedup", str(stored), "--out", str(tmp_path / "f.gif")), 2)


def commands() -> list[tuple[str, ...]]:
    """Every command there is."""
    from simkit.cli import app

    groups = [((), app), *(((group.name,), group.typer_instance) for group in app.registered_groups)]
    named = [(name, info) for name, group in groups for info in group.registered_commands]
    return [(*name, info.name or info.callback.__name__.rstrip("_")) for name, info in named if info.callback]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_takes_quiet_and_verbose(command: tuple[str, ...]) -> None:
    shown = simkit(*command, "--help").stdout
    assert "-q, --quiet" in shown
    assert "-v, --verbose" in shown


@pytest.mark.parametrize(
    ("before", "after", "logged"),
    [((), (), False), ((), ("-v",), True), (("-v",), (), True), ((), ("-q",), False), (("-v",), ("-q",), False)],
)
def test_log_is_on_stderr_when_asked_for(
    plain_trace_path: Path, before: tuple[str, ...], after: tuple[str, ...], logged: bool
) -> None:
    done = simkit(*before, "replay", str(plain_trace_path), "--arch", "cnvlutin", *after)
    assert done.returncode == 0
    assert ("simkit.engine.inputs: trace" in done.stderr) == logged
    assert "simkit.replay" not in done.stdout


def test_quiet_hides_bars_but_not_errors(
    plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a quick sweep is over before its bar would be shown
    monkeypatch.setattr(importlib.import_module("simkit.explore.sweep"), "DELAY_S", 0.0)
    spec = tmp_path / "s.yaml"
    spec.write_text(f"traces: {plain_trace_path}\narchs: cnvlutin\nfields: {{lanes: [8, 16]}}\n", encoding="utf-8")
    assert "2/2" in simkit("sweep", str(spec), "-o", str(tmp_path / "a")).stderr
    assert simkit("-q", "sweep", str(spec), "-o", str(tmp_path / "b")).stderr == ""
    assert simkit("sweep", str(spec), "-o", str(tmp_path / "c"), "-q").stderr == ""
    assert "did you mean 'lanes'" in error_line(simkit("sweep", str(spec), "-q", "--set", "lane=4"), 2)


def test_verbosity_ends_with_the_command(plain_trace_path: Path) -> None:
    simkit("-v", "ls", "archs")
    assert simkit("replay", str(plain_trace_path), "--arch", "cnvlutin").stderr.count("simkit.engine") == 0


# NO_COLOR is about colours alone: bold, italic and what ends them may stay
PLAIN_STYLES = {"", "0", "1", "2", "3", "4", "22", "23", "24"}


@pytest.mark.slow
@pytest.mark.parametrize("args", [("ls", "archs"), ("replay", "TRACE", "--arch", "cnvlutin"), ("sweeep",), ("--help",)])
def test_no_colour_on_a_terminal_where_it_is_unwanted(plain_trace_path: Path, args: tuple[str, ...]) -> None:
    pty = pytest.importorskip("pty", reason="terminals are tested on POSIX")
    words = [str(plain_trace_path) if word == "TRACE" else word for word in args]
    shown, terminal = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "FORCE_COLOR": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "simkit", *words]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=env) as process:
        os.close(terminal)
        seen = b""
        # a terminal whose last writer is gone gives an error, not an end
        with contextlib.suppress(OSError):
            while part := os.read(shown, 65536):
                seen += part
    os.close(shown)
    assert process.returncode == (2 if args == ("sweeep",) else 0)
    assert seen
    styles = {code for found in re.findall(rb"\x1b\[([0-9;]*)m", seen) for code in found.decode().split(";")}
    assert styles <= PLAIN_STYLES


def test_exit_codes_are_in_the_help() -> None:
    from simkit import errors
    from traces import errors as of_traces

    shown = " ".join(simkit("--help").stdout.split())
    kinds = [one for module in (errors, of_traces) for one in vars(module).values()]
    codes = {kind.exit_code for kind in kinds if hasattr(kind, "exit_code")}
    assert codes >= {2, 3, 4}
    for code in codes | {130}:
        assert re.search(rf"\b{code} [a-z]", shown), code


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("show arch cnvl", "cnvlutin"),
        ("ls arc", "archs"),
        ("plot speedup-d", "speedup-density"),
        ("replay t.zarr --arch systolic_32", "systolic_32x32"),
        ("replay t.zarr --table default_4", "default_45nm"),
    ],
)
def test_shell_completes_names(monkeypatch: pytest.MonkeyPatch, line: str, wanted: str) -> None:
    words = f"simkit {line}"
    monkeypatch.setenv("_SIMKIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert wanted in simkit().stdout.split()


@pytest.mark.parametrize(
    ("command", "wanted"), [("sweep", "the same command resumes"), ("plot", "nothing is half-written")]
)
def test_stopped_by_the_user_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, wanted: str
) -> None:
    from simkit.explore import spec
    from simkit.plots import catalogue

    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spec, "load_spec", stop)
    monkeypatch.setattr(catalogue, "draw_to_file", stop)
    args = {"sweep": ("s.yaml",), "plot": ("speedup", "r.parquet", "-o", str(tmp_path / "f.png"))}[command]
    done = simkit(command, *args)
    assert done.returncode == 130
    (line,) = (line for line in done.stderr.splitlines() if line)
    assert line.startswith("simkit: stopped; ")
    assert wanted in line
