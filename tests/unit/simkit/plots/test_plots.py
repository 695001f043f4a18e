"""Figures: what the axes hold, and a few as pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from drawn_traces import LAYERS, drawn_traces
from matplotlib import pyplot as plt
from matplotlib.testing.compare import compare_images
from plain_result import ACCURACY, ARCHS, TUNINGS, plain_result

import simkit as sk
from simkit.errors import InputError
from simkit.plots.catalogue import draw_to_file, drawers, save
from simkit.plots.roofline import peak_macs_per_s
from simkit.plots.speedup import stall_shares
from simkit.plots.style import WIDTHS
from simkit.plots.tradeoff import front

BASELINES = Path(__file__).parent / "baselines"
# root mean square over 8-bit channels; a moved bar or label is far above, another machine's antialiasing below
TOLERANCE = 6.0


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def result():
    return plain_result()


@pytest.fixture(scope="module")
def traces():
    return drawn_traces()


def bar_heights(ax) -> list[list[float]]:
    return [[bar.get_y() + bar.get_height() for bar in bars] for bars in ax.containers]


def legend_texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_speedup_bars_are_the_summary(result) -> None:
    ax = sk.plots.speedup_bars(result)
    wanted = result.summary().pivot(index="arch", columns="tuning", values="speedup").loc[list(ARCHS)]
    for heights, tuning in zip(bar_heights(ax), TUNINGS, strict=True):
        assert heights == pytest.approx(wanted[tuning].to_list())
    assert legend_texts(ax) == list(TUNINGS)
    assert ax.get_yscale() == "log"  # 1 to 25
    assert ax.get_ylabel() == "speed-up over dense (×)"


def test_narrow_spread_keeps_bars_on_zero(result) -> None:
    part = sk.Result(result.frame[result.frame["arch"] != "eie"].query("tuning == 'lora'"), result.meta)
    ax = sk.plots.speedup_bars(part)
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] == 0


def test_energy_rows_add_up_per_token(result) -> None:
    ax = sk.plots.energy_breakdown(result)
    names = legend_texts(ax)
    assert names == ["MAC", "on-chip", "DRAM", "static"]
    widths = np.array([[bar.get_width() for bar in bars] for bars in ax.containers if len(bars) == 6][: len(names)])
    wanted = [100.0 * density / gain for gain in ARCHS.values() for density in TUNINGS.values()]
    assert widths.sum(axis=0) == pytest.approx(wanted)
    assert widths[0] == pytest.approx(0.4 * np.array(wanted))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(TUNINGS) * 3
    assert ax.get_xlabel() == "energy per token (nJ)"


def test_energy_relative_to_an_arch(result) -> None:
    ax = sk.plots.energy_breakdown(result, relative_to="cnvlutin")
    ends = max(bar.get_x() + bar.get_width() for bars in ax.containers[:4] for bar in bars)
    assert ends == pytest.approx(4.0)  # the array takes four times what Cnvlutin takes for the first tuning
    assert "cnvlutin, lora = 1" in ax.get_xlabel()
    with pytest.raises(InputError, match="relative_to='cnv' is not in the result; it has systolic_32x32"):
        sk.plots.energy_breakdown(result, relative_to="cnv")


def test_accuracy_against_energy(result) -> None:
    ax = sk.plots.accuracy_energy(result)
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in ARCHS}
    for arch, gain in ARCHS.items():
        assert lines[arch].get_xdata() == pytest.approx([20.0 / gain, 100.0 / gain])
        assert lines[arch].get_ydata() == pytest.approx([ACCURACY["relu"], ACCURACY["lora"]])
    assert ax.get_xscale() == "log"
    assert set(legend_texts(ax)) == {*ARCHS, *TUNINGS}
    assert len({line.get_linestyle() for line in lines.values()}) == len(ARCHS)  # told apart without colours


def test_accuracy_must_have_been_measured(result) -> None:
    runs = {run: {**meta, "trace": {**meta["trace"], "measurements": {}}} for run, meta in result.meta["runs"].items()}
    bare = sk.Result(result.frame, {"runs": runs})
    with pytest.raises(InputError, match=r"no trace in this result \('lora', 'relu'\) has a measured accuracy"):
        sk.plots.accuracy_energy(bare)
    with pytest.raises(InputError, match="no tuning in this result has both 'train_seconds' and 'accuracy'"):
        sk.plots.tuning_cost(bare)


def test_speedup_against_density_has_the_ideal(result) -> None:
    ax = sk.plots.speedup_density(result)
    ideal = next(line for line in ax.lines if line.get_label() == "1 / density")
    assert ideal.get_ydata() == pytest.approx(1 / ideal.get_xdata())
    marks = next(line for line in ax.lines if line.get_label() == "eie")
    assert set(np.round(marks.get_xdata(), 6)) == {0.2}  # the dense tuning's density of 1 is left out
    assert marks.get_ydata() == pytest.approx([25.0, 25.0])


def test_stall_shares_add_up(result) -> None:
    shares = stall_shares(result)
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1.0)
    row = shares.loc[("cnvlutin", "lora")]
    assert row["DRAM"] == pytest.approx(0.25, abs=1e-3)
    assert row["useful"] / row["barrier"] == pytest.approx(3.0)
    ax = sk.plots.stall_breakdown(result)
    assert ax.get_xlim() == (0, 100)
    assert legend_texts(ax) == ["useful", "barrier", "DRAM"]


def test_stall_shares_of_a_real_replay_add_up(small_trace_path: Path) -> None:
    found = sk.replay(sk.load_trace(small_trace_path), ["cnvlutin", "systolic_32x32"], ops=["down"])
    shares = stall_shares(found)
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1.0)
    useful = shares.loc[("cnvlutin", "relu-lora"), "useful"]
    line = found.summary().set_index("arch").loc["cnvlutin"]
    # of 16 lanes' cycles, those in which a lane had a non-zero: an independent count from the MACs
    lanes_busy = line["effectual_macs"] / 384 * 2 / (16 * (line["cycles"] + line["stall_cycles"]))
    assert useful == pytest.approx(lanes_busy, rel=1e-3)


def test_utilisation_is_busy_over_cycles(result) -> None:
    ax = sk.plots.utilisation_map(result)
    shown = ax.images[0].get_array()
    cycles = result.ops.query("arch == 'cnvlutin' and tuning == 'lora'")["cycles"].iloc[0]
    assert shown[0].tolist() == pytest.approx([400_000 / cycles, 200_000 / cycles])
    assert shown.shape == (4, 2)
    with pytest.raises(InputError, match="no run on eie counts its units; those that do: cnvlutin"):
        sk.plots.utilisation_map(result, arch="eie")


def test_density_lines_are_the_sites_densities(traces) -> None:
    ax = sk.plots.density_by_layer(traces)
    for line, trace in zip(ax.lines, traces, strict=True):
        assert line.get_ydata() == pytest.approx([site.density() for site in trace.sites.values()])
        assert line.get_label() == trace.name
    with pytest.raises(InputError, match="trace 'lora' has no site of op 'dwn'; did you mean 'down'"):
        sk.plots.density_by_layer(traces, op="dwn")


def test_density_map_averages_positions(traces) -> None:
    trace = traces[1]
    ax = sk.plots.density_map(trace)
    shown = ax.collections[0].get_array()
    positions = trace.tokens["position"].to_numpy()
    assert shown.shape == (LAYERS, positions.max() + 1)
    mask = trace.sites["layers.2.down"].held.to_bool()
    assert shown[2, 5] == pytest.approx(mask[positions == 5].mean())
    with pytest.raises(InputError, match="draws one trace, 3 were given"):
        sk.plots.density_map(traces)


def test_density_map_of_a_stored_trace(small_trace_path: Path) -> None:
    trace = sk.load_trace(small_trace_path)
    shown = sk.plots.density_map(trace).collections[0].get_array()
    tokens = trace.tokens[trace.tokens["real"]]
    mask = trace.sites["layers.0.down"].mask().to_bool()
    first = mask[(tokens["position"] == 0).to_numpy()].mean()
    assert shown[0, 0] == pytest.approx(first)


def test_roofline_peak_is_the_arrays_rate(result) -> None:
    array = sk.arch("systolic_32x32")
    assert peak_macs_per_s(array) == pytest.approx(1024 * array.clock_hz)
    ax = sk.plots.roofline(result)
    roof = next(line for line in ax.lines if line.get_label() == "systolic_32x32")
    assert max(roof.get_ydata()) == pytest.approx(1024 * array.clock_hz)
    at, height = roof.get_xdata()[0], roof.get_ydata()[0]
    assert height == pytest.approx(min(1024 * array.clock_hz, at * float(array.memory.bandwidth.value)))


def test_roofline_markers_are_told_apart_without_colours(result) -> None:
    ax = sk.plots.roofline(result)
    filled = {line.get_fillstyle() for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())}
    assert len(filled) == len(ARCHS)


def test_roofline_refuses_an_arch_that_changed(result) -> None:
    runs = {run: {**m, "arch": {**m["arch"], "hash": "other"}} for run, m in result.meta["runs"].items()}
    with pytest.raises(InputError, match="has changed since this run"):
        sk.plots.roofline(sk.Result(result.frame, {"runs": runs}))


def test_front_keeps_what_nothing_beats() -> None:
    table = pd.DataFrame({"cost": [1.0, 2.0, 3.0, 3.0, 0.5], "gain": [5.0, 4.0, 9.0, 9.0, 1.0]})
    assert front(table, "cost", "gain", ["gain"]).tolist() == [True, False, True, True, True]
    assert front(table, "cost", "gain").tolist() == [False, False, False, False, True]


def test_pareto_marks_the_front(result) -> None:
    ax = sk.plots.pareto(result, x="energy_per_token_pj", y="accuracy")
    step = next(line for line in ax.lines if line.get_label() == "Pareto front")
    assert step.get_xdata() == pytest.approx([1.0, 5.0])  # EIE's two tunings, nJ
    assert step.get_ydata() == pytest.approx([0.80, 0.85])
    with pytest.raises(InputError, match="no column 'acuracy'; did you mean 'accuracy'"):
        sk.plots.pareto(result, y="acuracy")


def test_predicted_against_measured() -> None:
    table = pd.DataFrame({"p": [1.1, 1.8, 30.0], "m": [1.0, 2.0, 30.0], "set": ["a", "a", "b"]})
    ax = sk.plots.predicted_measured(table, predicted="p", measured="m", group="set", unit="µs")
    assert "a: 10.0%" in legend_texts(ax)
    assert "b: 0.0%" in legend_texts(ax)
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlabel() == "measured (µs)"
    with pytest.raises(InputError, match="no column 'pred'"):
        sk.plots.predicted_measured(table, predicted="pred", measured="m")
    with pytest.raises(InputError, match="no row has positive"):
        sk.plots.predicted_measured(table.assign(p=0.0), predicted="p", measured="m")


def test_tuning_cost(result) -> None:
    ax = sk.plots.tuning_cost(result)
    assert legend_texts(ax) == list(TUNINGS)
    assert ax.get_xlabel() == "tuning time (s)"
    assert [float(bars.lines[0].get_xdata()[0]) for bars in ax.containers] == pytest.approx([60.0, 300.0])


def test_unknown_op_is_named(result) -> None:
    with pytest.raises(InputError, match="the result has no op 'don'; did you mean 'down'"):
        sk.plots.speedup_bars(result, ops="don")


@pytest.mark.parametrize("kind", list(WIDTHS))
def test_paper_sets_width_and_embeds_fonts(result, kind: str) -> None:
    before = dict(mpl.rcParams)
    with sk.paper(kind):
        ax = sk.plots.speedup_bars(result)
        assert mpl.rcParams["pdf.fonttype"] == 42
    assert ax.figure.get_figwidth() == WIDTHS[kind]
    assert dict(mpl.rcParams) == before


def test_unknown_venue() -> None:
    with pytest.raises(InputError, match="unknown paper style 'iee'; did you mean 'ieee'"), sk.paper("iee"):
        pass


def test_a_notebooks_interactive_mode_survives(result) -> None:
    assert not mpl.is_interactive()
    try:
        with sk.paper("acm"):
            mpl.interactive(True)  # what the inline backend does when the first figure is made
        assert mpl.is_interactive()
    finally:
        mpl.interactive(False)


@pytest.mark.parametrize(("factor", "label"), [(1.0, "energy per token (nJ)"), (1e3, "energy per token (µJ)")])
def test_energy_axes_take_the_unit_that_reads_well(result, factor: float, label: str) -> None:
    table = result.summary().assign(accuracy=0.5)
    table["energy_per_token_pj"] *= factor
    ax = sk.plots.pareto(table, x="energy_per_token_pj", y="accuracy")
    eie = next(line for line in ax.lines if line.get_label() == "eie")
    assert ax.get_xlabel() == label
    assert min(eie.get_xdata()) == pytest.approx(1.0)


def test_many_series_are_told_apart() -> None:
    from simkit.plots.style import mark

    assert len({tuple(mark(index).values()) for index in range(22)}) == 22


def test_names_that_would_touch_are_set_aslant() -> None:
    from simkit.plots.style import axes, name_ticks

    for names, angle in ((["a", "b", "c"], 0.0), (["tile_barrier_32x32", "tensordash_tile"] * 4, 30.0)):
        with sk.paper("acm"):
            ax = axes(None)
            name_ticks(ax, names)
        assert {label.get_rotation() for label in ax.get_xticklabels()} == {angle}


def test_a_legend_beside_long_names_of_rows_is_not_one_column(result) -> None:
    long = {name: name + "-after-a-very-long-recipe" for name in TUNINGS}
    frame = result.frame.assign(tuning=result.frame["tuning"].map(long))
    with sk.paper("acm"):
        ax = sk.plots.energy_breakdown(sk.Result(frame, result.meta))
        ax.figure.draw_without_rendering()
    rows = {round(text.get_window_extent().y0) for text in ax.get_legend().get_texts()}
    assert len(rows) <= 2
    assert ax.get_legend().get_window_extent().x0 >= 0


@pytest.mark.parametrize(
    "name", ["speedup", "speedup-density", "energy", "tradeoff", "cost", "pareto", "stalls", "utilisation", "roofline"]
)
def test_no_figure_at_column_width_has_text_on_text(result, name: str) -> None:
    """Tick labels, axis labels and legend of a column-wide figure do not touch."""
    with sk.paper("ieee"):
        ax = drawers()[name].draw(result)
        figure = ax.figure
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [t for t in axis.get_ticklabels() if t.get_text() and t.get_visible()]
            boxes = [t.get_window_extent(renderer) for t in ticks]
            low, high = sorted(axis.get_view_interval())
            inside = [b for t, b in zip(ticks, boxes, strict=True) if low <= _place(t, axis) <= high]
            for one, other in pairwise(inside):
                assert not one.overlaps(other), f"{name}: tick labels overlap"
        legend = ax.get_legend()
        if legend is not None:
            axes_box = ax.get_window_extent(renderer)
            assert legend.get_window_extent(renderer).y0 >= axes_box.y1 - 1, f"{name}: legend on the data"


def _place(tick, axis) -> float:
    return float(tick.get_position()[0 if axis.axis_name == "x" else 1])


def test_save_is_whole_and_names_the_runs(result, tmp_path: Path) -> None:
    out = save(sk.plots.speedup_bars(result), tmp_path / "f.pdf", keywords=["run1", "run2"])
    assert b"run1 run2" in out.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["f.pdf"]
    again = save(sk.plots.speedup_bars(result), tmp_path / "g.pdf", keywords=["run1", "run2"])
    assert again.read_bytes() == out.read_bytes()


def test_draw_to_file_from_stored_inputs(result, small_trace_path: Path, tmp_path: Path) -> None:
    stored = str(result.save(tmp_path / "r.parquet"))
    drawn = draw_to_file("speedup", [stored], tmp_path / "a.svg", style="ieee", ops=["down"])
    assert "lora-eie" in drawn.read_text()
    draw_to_file("density", [str(small_trace_path)], tmp_path / "b.png")
    pd.DataFrame({"predicted": [1.0], "measured": [2.0]}).to_csv(tmp_path / "t.csv", index=False)
    draw_to_file("agreement", [str(tmp_path / "t.csv")], tmp_path / "c.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "b.png", "c.png", "r.parquet", "t.csv"]
    for args, message in (
        (("densty", [stored], tmp_path / "d.png"), "unknown figure 'densty'; did you mean 'density'"),
        (("speedup", [stored], tmp_path / "d.gif"), "a figure ends in .png, .pdf, .svg"),
        (("agreement", ["none.csv"], tmp_path / "d.png"), "no table at none.csv"),
    ):
        with pytest.raises(InputError, match=message):
            draw_to_file(*args)
    with pytest.raises(InputError, match="figure 'cost' takes no --op"):
        draw_to_file("cost", [stored], tmp_path / "d.png", ops=["down"])
    assert not (tmp_path / "d.png").exists()


@pytest.mark.parametrize("name", ["speedup", "energy", "density-map"])
def test_picture_is_the_baseline(result, traces, tmp_path: Path, name: str) -> None:
    """Set UPDATE_BASELINES=1 to draw the baselines anew, then look at them."""
    baseline, drawn = BASELINES / f"{name}.png", tmp_path / f"{name}.png"
    with sk.paper("ieee"):
        ax = drawers()[name].draw(traces[1] if name == "density-map" else result)
        ax.figure.savefig(drawn, dpi=100, metadata={"Software": None})
    if os.environ.get("UPDATE_BASELINES"):
        BASELINES.mkdir(exist_ok=True)
        baseline.write_bytes(drawn.read_bytes())
    difference = compare_images(str(baseline), str(drawn), tol=TOLERANCE)
    assert difference is None, difference


@pytest.mark.parametrize(("venue", "beside"), [("acm", False), ("slides", True)])
def test_names_of_many_tunings_leave_room_for_their_points(venue: str, beside: bool) -> None:
    names = [f"tuning-{index}" for index in range(22)]
    steps = np.linspace(0, 1, len(names))
    table = pd.DataFrame({"tuning": names, "arch": "eie", "accuracy": 0.5 + 0.4 * steps, "accuracy_se": 0.01})
    table["density"] = 0.02 + 0.9 * steps
    with sk.paper(venue):
        ax = sk.plots.methods_front(table)
        ax.figure.draw_without_rendering()
    box, legend, page = (one.get_window_extent() for one in (ax, ax.get_legend(), ax.figure))
    assert (legend.x0 >= box.x1) == beside
    assert box.width >= 0.6 * page.width
    assert box.height >= 0.35 * page.height
    assert legend.y1 <= page.y1 + 1
