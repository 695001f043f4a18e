"""A column of a Result is one entry; the names of ops are checked by one rule."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from drawn_traces import DrawnTrace
from matplotlib import pyplot as plt
from plain_result import plain_result
from typer.testing import CliRunner

import simkit as sk
from simkit.cli import app
from simkit.engine import gap
from simkit.engine.timeline import timeline
from simkit.errors import InputError
from simkit.explore.search import SearchSpec
from simkit.explore.sweep import points
from simkit.report.facts import layer_table
from simkit.results import columns
from simkit.results.columns import COLUMNS, Column
from simkit.results.result import Result

LIGHT = """
import sys
import simkit.results.result
late = ("simkit.plots", "simkit.results.tables", "simkit.results.typeset", "matplotlib", "torch")
print([name for name in late if name in sys.modules])
"""
VIEWS = ("table", "report", "print", "points", "diff", "objective")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Column:
    """A column that nothing but this entry knows of: microseconds a token."""
    column = Column(
        "time a token",
        "ns",
        1e9,
        derive=columns.ratio("latency_s", "tokens"),
        units=(("ns", 1e9), ("µs", 1e6)),
        views=VIEWS,
    )
    monkeypatch.setitem(COLUMNS, "time_per_token_s", column)
    return column


def test_a_new_column_is_one_entry(made_up: Column, plain_trace_path: Path, tmp_path: Path) -> None:
    result = plain_result()
    wanted = result.summary()["latency_s"] / 100
    assert result.summary()["time_per_token_s"].tolist() == pytest.approx(wanted.tolist())
    text = sk.table(result).text
    assert text["time a token (µs)"].iloc[0] == "20.0"
    assert "time_per_token_s" in result.summary().to_csv().splitlines()[0]
    ax = sk.plots.pareto(result, x="time_per_token_s", y="energy_per_token_pj")
    assert ax.get_xlabel() == "time a token (µs)"
    plt.close(ax.figure)
    other = Result(result.frame.assign(latency_s=result.frame["latency_s"] * 2), result.meta)
    found = sk.diff(result, other).set_index("quantity").loc["time_per_token_s"]
    assert set(found["ratio"]) == {2.0}
    assert result.pivot("arch", "tuning", "time_per_token_s").loc["eie", "relu"] == pytest.approx(wanted.iloc[-1])
    assert SearchSpec(traces=["t"], archs=["eie"], objectives=["time_per_token_s"]).objectives == ["time_per_token_s"]

    swept = sk.sweep([plain_trace_path], ["cnvlutin"], out=tmp_path / "parts", progress=False)
    assert points(swept.meta)["time_per_token_s"].iloc[0] == pytest.approx(
        swept.summary()["latency_s"].iloc[0] / 40, rel=1e-12
    )
    stored = swept.save(tmp_path / "r.parquet")
    for words in (["diff", stored, stored], ["replay", plain_trace_path, "-a", "cnvlutin"]):
        assert "time a token" in CliRunner().invoke(app, [str(word) for word in words]).output


def test_every_column_can_be_shown() -> None:
    for name, column in COLUMNS.items():
        assert column.title, name
        assert set(column.views) <= set(VIEWS), name
        for other in (column.low, column.high):
            assert not other or other in plain_result().summary(), name
        unit, factor = column.unit_of()
        assert not column.units or (unit, factor) in column.units, name


@pytest.mark.parametrize(
    ("largest", "wanted"), [(0.5, "pJ"), (5e2, "pJ"), (5e3, "nJ"), (2e6, "µJ"), (3e9, "mJ"), (1e13, "J"), (0.0, "nJ")]
)
def test_energies_have_one_unit_by_magnitude(largest: float, wanted: str) -> None:
    values = pd.Series([0.0, largest])
    column = COLUMNS["energy_per_token_pj"]
    assert column.heading(values) == f"energy ({wanted}/token)"
    assert column.axis(values)[0] == f"energy per token ({wanted})"
    frame = pd.DataFrame({"energy_per_token_pj": values})
    assert list(sk.table(frame, ["energy_per_token_pj"]).text.columns) == [f"energy ({wanted}/token)"]
    assert columns.printable(frame, ["energy_per_token_pj"])[1] == {"energy_per_token_pj": f"energy ({wanted}/token)"}


def test_few_cycles_are_not_millions() -> None:
    for values, heading, cell in (([979, 10], "cycles", "979"), ([979_000_000, 10], "cycles (10⁶)", "979.0")):
        text = sk.table(pd.DataFrame({"cycles": values}), ["cycles"]).text
        assert text[heading].iloc[0] == cell


def test_layers_of_a_report_have_the_same_figures() -> None:
    result = plain_result()
    layers, summary = layer_table(result), result.summary()
    for (arch, tuning), rows in layers.groupby(["arch", "tuning"]):
        run = summary[(summary["arch"] == arch) & (summary["tuning"] == tuning)].iloc[0]
        assert rows["speedup"].tolist() == pytest.approx([run["speedup"]] * 2)
        assert rows["energy_uj"].sum() == pytest.approx(run["energy_pj"] / 1e6)


USES: dict[str, Callable[[Result], Any]] = {
    "summary": lambda result: result.summary("dwn"),
    "pivot": lambda result: result.pivot("arch", "tuning", "cycles", ops=["dwn"]),
    "pivot over actions": lambda result: result.pivot(["arch", "tuning"], "component", "energy_pj", ops="dwn"),
    "table": lambda result: sk.table(result, ops="dwn"),
    "diff": lambda result: sk.diff(result, result, ops="dwn"),
    "one of two": lambda result: result.summary(["down", "dwn"]),
    "speedup": lambda result: sk.plots.speedup_bars(result, ops="dwn"),
    "density": lambda result: sk.plots.speedup_density(result, ops=["dwn"]),
    "energy": lambda result: sk.plots.energy_breakdown(result, ops="dwn"),
    "stalls": lambda result: sk.plots.stall_breakdown(result, ops="dwn"),
    "tradeoff": lambda result: sk.plots.accuracy_energy(result, ops="dwn"),
    "pareto": lambda result: sk.plots.pareto(result, ops="dwn"),
    "roofline": lambda result: sk.plots.roofline(result, ops="dwn"),
}


@pytest.mark.parametrize("use", list(USES))
def test_a_mistyped_op_is_named(use: str) -> None:
    with pytest.raises(InputError, match="the result has no op 'dwn'; did you mean 'down'"):
        USES[use](plain_result())
    plt.close("all")


def test_a_mistyped_op_of_a_trace_is_named(plain_trace_path: Path, tmp_path: Path) -> None:
    trace = sk.load_trace(plain_trace_path)
    message = "trace 'plain' has no op 'dwn'; did you mean 'down'"
    for use in (
        lambda: sk.replay(trace, ["cnvlutin"], ops="dwn"),
        lambda: sk.sweep([trace], ["cnvlutin"], ops="dwn", out=tmp_path, progress=False),
        lambda: gap.gap(trace, ["cnvlutin"], ops="dwn"),
        lambda: timeline(trace, sk.arch("cnvlutin"), tmp_path / "t.json", op="dwn"),
    ):
        with pytest.raises(InputError, match=message):
            use()
    with pytest.raises(InputError, match="ops is an empty list"):
        sk.replay(trace, ["cnvlutin"], ops=[])
    whole = sk.replay(trace, ["cnvlutin"], ops="down")
    assert list(whole.meta["runs"]) == list(sk.sweep([trace], ["cnvlutin"], ops=["down", "down"], progress=False,
                                                     out=tmp_path / "s").meta["runs"])  # fmt: skip


def test_commands_name_a_mistyped_op(plain_trace_path: Path, tmp_path: Path) -> None:
    stored = sk.replay(sk.load_trace(plain_trace_path), ["cnvlutin"]).save(tmp_path / "r.parquet")
    for words in (
        ["replay", plain_trace_path, "-a", "cnvlutin", "--op", "dwn"],
        ["plot", "speedup", stored, "-o", tmp_path / "f.png", "--op", "dwn"],
        ["diff", stored, stored, "--op", "dwn"],
    ):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert getattr(done.exception, "exit_code", None) == 2
        assert "has no op 'dwn'; did you mean 'down'" in str(done.exception)
    assert not (tmp_path / "f.png").exists()


def test_traces_without_the_op_have_no_density(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trace 'a' has no site of op 'dwn'; did you mean 'down'"):
        sk.plots.density_by_layer([DrawnTrace("a", 0.5, 0.8)], op="dwn")


def test_reading_a_result_imports_no_figures() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
