"""Figures of what a density hides: what the axes hold is what the masks hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_traces import TOKENS, K, drawn_traces
from matplotlib import pyplot as plt

import simkit as sk
from hwmodels import PackedMask
from simkit.errors import InputError
from simkit.plots import patterns
from simkit.plots.catalogue import catalogue, draw_to_file, drawers

SMALL = Path(__file__).parents[3] / "data" / "minilm_relu_small.zarr"
OF_TRACES = ("union", "tiles", "coactivation", "hot-neurons", "zero-runs", "overlap", "entropy")
OF_ONE = ("tiles", "coactivation")


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def traces() -> list[Any]:
    return drawn_traces()


def masks(trace: Any) -> list[Any]:
    return [site.mask() for site in trace.sites.values()]


def solid(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.lines if line.get_linestyle() == "-"}


def dashed(ax: Any) -> list[Any]:
    return [line for line in ax.lines if line.get_linestyle() == "--" and len(line.get_xdata())]


def test_union_is_of_the_masks_and_dashed_is_that_of_independent_tokens(traces: list[Any]) -> None:
    ax = sk.plots.union_density(traces, batches=(1, 4, 32, 10_000))
    line = solid(ax)[traces[0].name]
    assert list(line.get_xdata()) == [1, 4, 32]
    for batch, value in zip((1, 4, 32), line.get_ydata(), strict=True):
        whole = [m.bools() for m in map(Bools, masks(traces[0]))]
        joined = [np.mean([g.any(axis=0).mean() for g in np.split(b, TOKENS // batch)]) for b in whole]
        assert value == pytest.approx(np.mean(joined))
    # drawn masks are independent
    assert dashed(ax)[0].get_ydata() == pytest.approx(line.get_ydata(), abs=0.03)


class Bools:
    """A packed mask as bits, worked out without the code under test."""

    def __init__(self, mask: PackedMask):
        self._mask = mask

    def bools(self) -> np.ndarray[Any, Any]:
        words = np.concatenate(list(self._mask.blocks(7)))
        return np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, : self._mask.shape[1]].astype(bool)


def test_tiles_are_counted(traces: list[Any]) -> None:
    ax = sk.plots.tile_density(traces[0], rows=(1, 8), columns=(64, 256, 512))
    (image,) = ax.images
    grid = image.get_array()
    assert grid.shape == (2, 2)  # a tile of 512 neurons is wider than the masks
    whole = [Bools(mask).bools() for mask in masks(traces[0])]
    tiles = [b.reshape(TOKENS // 8, 8, K // 64, 64).any(axis=(1, 3)).mean() for b in whole]
    assert grid[1, 0] == pytest.approx(np.mean(tiles))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["64", "256"]


def test_phi_of_known_pairs() -> None:
    a = np.array([1, 1, 0, 0], dtype=bool)
    columns = np.stack([a, a, ~a, [True, False, True, False], [True] * 4], axis=1).astype(float)
    found = patterns.phi(columns.T @ columns / 4)
    assert found[0, :4] == pytest.approx([1, 1, -1, 0])
    assert np.isnan(found[4]).all()


def test_coactivation_is_of_the_layer_asked_for(traces: list[Any]) -> None:
    ax = sk.plots.coactivation(traces[0], layer=2, neurons=12)
    grid = np.asarray(ax.images[0].get_array())
    hottest = Bools(masks(traces[0])[2]).bools()
    order = np.argsort(-hottest.sum(axis=0), kind="stable")[:12]
    wanted = np.corrcoef(hottest[:, order].astype(float).T)
    np.fill_diagonal(wanted, np.nan)
    np.testing.assert_allclose(grid, wanted, atol=1e-9)
    assert "layer 2" in ax.get_title(loc="left")
    assert "layer 1" in sk.plots.coactivation(traces[0]).get_title(loc="left")
    with pytest.raises(InputError, match="no layer 9 of op 'down'; it has 0 to 2"):
        sk.plots.coactivation(traces[0], layer=9)


@pytest.mark.slow
def test_hot_neurons_are_a_lorenz_curve() -> None:
    even, one = np.ones((8, 100), dtype=bool), np.zeros((8, 100), dtype=bool)
    one[:, 3] = True
    for bits, half in ((even, 0.5), (one, 1.0)):
        ax = sk.plots.hot_neurons(trace_of(bits))
        (line,) = solid(ax).values()
        assert line.get_ydata()[50] == pytest.approx(half)
        assert line.get_ydata()[-1] == pytest.approx(1.0)


def trace_of(bits: np.ndarray[Any, Any], **attrs: Any) -> Any:
    """A drawn trace with one layer of these bits."""
    trace = drawn_traces()[0]
    site = next(iter(trace.sites.values()))
    site.held = PackedMask.from_bool(bits)
    trace.sites = {site.name: site}
    trace.attrs = {**trace.attrs, **attrs}
    return trace


def test_zero_runs_are_counted_and_the_law_is_geometric() -> None:
    bits = np.zeros((4, 16), dtype=bool)
    bits[:, [0, 2, 5, 10, 15]] = True  # runs of 1, 2, 4, 4
    ax = sk.plots.zero_runs(trace_of(bits), longest=8)
    (line,) = solid(ax).values()
    assert dict(zip(line.get_xdata().tolist(), line.get_ydata(), strict=True)) == pytest.approx(
        {1: 1.0, 2: 0.75, 3: 0.5, 4: 0.5}
    )
    law = dashed(ax)[0]
    assert law.get_ydata()[1] == pytest.approx(1 - 5 / 16)
    with pytest.raises(InputError, match="have no zero"):
        sk.plots.zero_runs(trace_of(np.ones((4, 16), dtype=bool)))


def test_overlap_of_tokens_that_repeat_is_whole() -> None:
    row = np.random.default_rng(0).random(64) < 0.3
    ax = sk.plots.token_overlap(trace_of(np.tile(row, (6, 1))))
    (line,) = solid(ax).values()
    assert line.get_ydata() == pytest.approx([1.0])
    with pytest.raises(InputError, match="needs two of them"):
        sk.plots.token_overlap(trace_of(row[None]))


def test_entropy_of_a_coin_is_a_bit() -> None:
    half = np.zeros((4, 64), dtype=bool)
    half[:2] = True
    fixed = np.zeros((4, 64), dtype=bool)
    fixed[:, :32] = True
    for bits, wanted in ((half, 1.0), (fixed, 0.0)):
        ax = sk.plots.entropy(trace_of(bits))
        (line,) = solid(ax).values()
        assert line.get_ydata() == pytest.approx([wanted])
        assert dashed(ax)[0].get_ydata() == pytest.approx([1.0])  # both have density 1/2


@pytest.mark.parametrize("name", OF_TRACES)
def test_synthetic_masks_say_so(traces: list[Any], name: str) -> None:
    draw = drawers()[name].draw
    drawn = trace_of(Bools(masks(traces[0])[0]).bools(), synthetic=True)
    ax = draw(drawn if name in OF_ONE else [traces[0], drawn])
    legend = [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []
    assert "(synthetic)" in " ".join([*legend, ax.get_title(loc="left")])


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TRACES)
def test_each_is_drawn_from_a_stored_trace(name: str, tmp_path: Path) -> None:
    made = draw_to_file(name, [str(SMALL)], tmp_path / "f.svg", style="ieee")
    assert sk.load_trace(SMALL).hash in made.read_text(encoding="utf-8")


def test_options_reach_the_figure_or_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no layer 77"):
        draw_to_file("coactivation", [str(SMALL)], tmp_path / "f.svg", options={"layer": 77})
    with pytest.raises(InputError, match="figure 'union' takes no --layer"):
        draw_to_file("union", [str(SMALL)], tmp_path / "f.svg", options={"layer": 1, "x": None})
    with pytest.raises(InputError, match="has no site of op 'dwn'; did you mean 'down'"):
        draw_to_file("union", [str(SMALL)], tmp_path / "f.svg", ops=["dwn"])
    with pytest.raises(InputError, match="one op at a time"):
        draw_to_file("union", [str(SMALL)], tmp_path / "f.svg", ops=["down", "gate"])
    with pytest.raises(InputError, match="drawn from traces; give at least one"):
        draw_to_file("union", [], tmp_path / "f.svg")
    with pytest.raises(InputError, match="the package's own results; give no input"):
        draw_to_file("gates", [str(SMALL)], tmp_path / "f.svg")
    assert not list(tmp_path.iterdir())


def test_gates_need_no_input(tmp_path: Path) -> None:
    assert draw_to_file("gates", [], tmp_path / "g.png").stat().st_size > 10_000


def test_catalogue_says_what_each_shows() -> None:
    rows = {row["name"]: row for row in catalogue()}
    assert rows.keys() == drawers().keys()
    assert all(len(row["shows"]) > 20 for row in rows.values())
    assert rows["union"]["drawn from"] == "traces"
