"""Replay: a trace's masks reach the kernels, and prices make energies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hwmodels
import simkit as sk
from simkit.engine.replay import build_ops
from simkit.errors import CorruptError, InputError
from simkit.results.result import KEY, concat, load_result


@pytest.fixture(scope="module")
def trace(plain_trace_path: Path):
    return sk.load_trace(plain_trace_path)


@pytest.fixture(scope="module")
def result(trace):
    return sk.replay(trace, ["systolic_32x32", "cnvlutin"])


def test_ops_carry_the_recorded_masks(trace, plain_trace_path: Path) -> None:
    masks = np.load(plain_trace_path.parent / "masks.npz")
    ops = list(build_ops(trace))
    assert [(op.m, op.k, op.n) for op in ops] == [(40, 96, 24), (40, 130, 50)]
    for op, name in zip(ops, ("first", "second"), strict=True):
        assert np.array_equal(hwmodels.mask.load(op.activation).to_bool(), masks[name])
        assert np.array_equal(hwmodels.mask.load(op.weight).to_bool(), masks[f"{name}_weight"])


def test_effectual_macs_are_the_popcount_times_n(trace, result, plain_trace_path: Path) -> None:
    masks = np.load(plain_trace_path.parent / "masks.npz")
    wanted = [int(masks["first"].sum()) * 24, int(masks["second"].sum()) * 50]
    for _, rows in result.ops.groupby("arch"):
        assert rows["effectual_macs"].tolist() == wanted


def test_energy_is_counts_times_prices(result) -> None:
    table = hwmodels.load_table("default_45nm")
    frame = result.frame[result.frame["component"] != "static"]
    for row in frame.itertuples():
        price = table.price(hwmodels.load_arch(row.arch), f"{row.component}.{row.action}")
        assert row.energy_pj == pytest.approx(row.count * price.pj)
    static = result.frame[result.frame["component"] == "static"]
    for row in static.itertuples():
        watts = hwmodels.load_arch(row.arch).static_power.value
        assert row.energy_pj * 1e-12 == pytest.approx(watts * row.latency_s, rel=1e-6)


def test_a_supply_and_derived_costs_change_energy_and_not_cycles(trace) -> None:
    arch = sk.arch("systolic_32x32")
    variants = [arch, sk.arch("systolic_32x32", voltage="0.8 V"), sk.arch("systolic_32x32", costs="derived")]
    found = sk.replay(trace, variants)
    stated, low, derived = (found.frame[found.frame["arch"] == one.name] for one in variants)
    assert stated["cycles"].tolist() == low["cycles"].tolist() == derived["cycles"].tolist()
    mac = {name: rows[rows["action"] == "compute"]["energy_pj"].sum() for name, rows in (("as", stated), ("low", low))}
    assert mac["low"] == pytest.approx(hwmodels.scaling.energy_factor(45, 45, 1.0, 0.8) * mac["as"])
    dram = [rows[rows["component"] == "dram"]["energy_pj"].sum() for rows in (stated, low, derived)]
    assert dram[0] == dram[1] == dram[2]
    assert stated["energy_pj"].sum() != derived["energy_pj"].sum()
    assert len({run["area_mm2"] for run in found.meta["runs"].values()}) == 1


def test_what_cannot_be_priced_is_refused_before_any_mask_is_read(trace, monkeypatch: pytest.MonkeyPatch) -> None:
    from simkit.engine.workload import Workload

    monkeypatch.setattr(Workload, "count", lambda *args: pytest.fail("counted first"))
    with pytest.raises(hwmodels.InputError, match=r"clock 3 GHz is above the 1\.55 GHz"):
        sk.replay(trace, ["cnvlutin", sk.arch("systolic_32x32", clock="3 GHz")])
    with pytest.raises(hwmodels.InputError, match="parameter 'lanes' = 0"):
        sk.replay(trace, [sk.arch("cnvlutin", lanes=0)])


def test_summary_divides_by_tokens_and_latency(result, trace) -> None:
    summary = result.summary()
    totals = result.frame.groupby("arch", sort=False)["energy_pj"].sum()
    for row in summary.itertuples():
        assert row.energy_per_token_pj == pytest.approx(totals[row.arch] / trace.n_tokens)
        assert row.power_w == pytest.approx(totals[row.arch] * 1e-12 / row.latency_s)
        assert row.speedup == pytest.approx(row.dense_latency_s / row.latency_s)
        assert row.energy_low_per_token_pj <= row.energy_per_token_pj <= row.energy_high_per_token_pj


def test_pivot_sums_ops_once(result) -> None:
    cycles = result.pivot("arch", "trace", "cycles")
    assert cycles.loc["cnvlutin"].iloc[0] == result.ops.query("arch == 'cnvlutin'")["cycles"].sum()
    with pytest.raises(InputError, match="no column 'energi_pj'; did you mean 'energy_pj'"):
        result.pivot("arch", "trace", "energi_pj")


def test_result_survives_storage(result, tmp_path: Path) -> None:
    path = result.save(tmp_path / "r.parquet")
    again = load_result(path)
    assert again.frame.equals(result.frame)
    assert again.meta["runs"].keys() == result.meta["runs"].keys()
    assert not list(tmp_path.glob(".*part"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptError, match="damaged"):
        load_result(path)


def test_concat_keeps_a_run_once(result) -> None:
    assert len(concat([result, result]).frame) == len(result.frame)


def test_runs_are_keyed_by_content(trace, result) -> None:
    again = sk.replay(trace, ["cnvlutin"])
    assert set(again.meta["runs"]) < set(result.meta["runs"])
    other = sk.replay(trace, [sk.arch("cnvlutin", clock="1 GHz")])
    assert not set(other.meta["runs"]) & set(result.meta["runs"])


def test_keys_are_unique(result) -> None:
    assert not result.frame.duplicated([*KEY, "component", "action"]).any()


def test_missing_weight_mask_of_a_two_sided_design(tmp_path: Path) -> None:
    import traces

    np.savez(tmp_path / "m.npz", site=np.ones((3, 8), dtype=bool))
    bare = traces.import_masks(tmp_path / "m.npz", tmp_path / "t.zarr", n=4)
    with pytest.raises(hwmodels.InputError, match=r"no weight mask.*weights='dense'"):
        sk.replay(bare, ["eie"])
    assert sk.replay(bare, ["eie"], weights="dense").summary()["cycles"].iloc[0] > 0
    with pytest.raises(InputError, match="weights 'sparse' is not known"):
        sk.replay(bare, ["eie"], weights="sparse")


def test_unknown_op_names_the_known(trace) -> None:
    with pytest.raises(InputError, match=r"has no op 'up'; known: down"):
        sk.replay(trace, ["cnvlutin"], ops=["up"])


def test_functions_are_not_hidden_by_their_modules() -> None:
    from importlib import import_module

    assert import_module("simkit.engine.replay").replay is sk.replay
    assert import_module("simkit.explore.sweep").sweep is sk.sweep


def test_batch_decides_launches(trace) -> None:
    whole = sk.replay(trace, ["h100_sxm"]).ops.set_index("layer")
    single = sk.replay(trace, ["h100_sxm"], batch=1).ops.set_index("layer")
    assert set(single["batch"]) == {1}
    assert (single["latency_s"] > whole["latency_s"]).all()
    assert single["macs"].tolist() == whole["macs"].tolist()
    with pytest.raises(InputError, match="batch = 0"):
        sk.replay(trace, ["h100_sxm"], batch=0)
