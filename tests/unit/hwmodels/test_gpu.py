"""The GPU timing, sparse and energy models against their definitions and limits."""

from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import InputError, Op, PackedMask, load_arch, load_table, simulate
from hwmodels.gpu import TILE_FAMILIES, DataSheet, GemmModel, carry, fit, load_correction, predict, spread
from hwmodels.gpu.calibrate import HOPPER, START, Launches, fit_gather, predict_gathers
from hwmodels.gpu.energy import EnergyModel, fit_energy
from hwmodels.gpu.foils import Roofline, calibrated_roofline, naive_roofline
from hwmodels.gpu.sparse import bernoulli_runs, gated_mlp_seconds, gather_seconds, live_blocks, union_rows
from hwmodels.gpu.timing import explain
from hwmodels.kernels.gpu import GpuParams, model_of
from hwmodels.reference.gpu import gemm_seconds
from hwmodels.registry import params_of

DEVICES = ("a100_sxm", "h100_sxm", "h200_sxm", "b200", "l4", "l40s", "rtx_4090", "agx_orin_64")
EXTENT = st.integers(1, 20_000)


def shapes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log([1, 128, 128]), np.log([8192, 16384, 16384]), (count, 3))).astype(np.int64)


def h100() -> GemmModel:
    return model_of(params_of(load_arch("h100_sxm")), 16)


@settings(max_examples=20, deadline=None)
@given(EXTENT, EXTENT, EXTENT, st.sampled_from(sorted(TILE_FAMILIES)), st.sampled_from(["none", "h100_bf16"]))
def test_prediction_is_the_definition(m: int, n: int, k: int, family: str, correction: str) -> None:
    model = GemmModel(h100().timing, family, load_correction(correction))
    params = SimpleNamespace(**model.timing._asdict(), tile_family=family, correction=correction)
    assert model.predict([[m, n, k]])[0] == pytest.approx(gemm_seconds(m, n, k, params, 2.0), rel=1e-9)


def test_no_prediction_is_below_the_roofline_of_its_own_figures() -> None:
    timing = h100().timing
    roof = Roofline(timing.launch_s, timing.sustained_flops, timing.dram)
    mnk = shapes(5000)
    assert (predict(mnk, timing, TILE_FAMILIES["fine"]) >= roof.predict(mnk) * (1 - 1e-12)).all()


def test_repeated_shapes_give_the_times_of_single_ones() -> None:
    few, model = shapes(300), h100()
    order = np.random.default_rng(1).integers(0, len(few), 4000)
    np.testing.assert_array_equal(model.predict(few[order]), model.predict(few)[order])


def test_a_wave_more_costs_a_step() -> None:
    # 132 tiles of 128 x 256 fill an H100 once; one row of tiles more needs a second wave
    free = dict.fromkeys(("l2", "dram", "sm_dram", "sm_fill", "sustained_flops"), 1e18)
    timing = START._replace(launch_s=1e-9, prologue_s=1e-9, step_s=1e-15, split_s=1.0, **free)
    tiles = np.array([[128, 256]])
    one, two = predict([[128 * 11, 256 * 12, 8192], [128 * 11 + 1, 256 * 12, 8192]], timing, tiles)
    wave = 2 * 128 * 256 * 8192 / timing.sm_flops
    assert one == pytest.approx(wave, rel=0.01)
    assert two == pytest.approx(2 * wave, rel=0.01)


def test_long_k_is_split_when_few_tiles_work() -> None:
    found = explain([[16, 256, 65536], [8192, 8192, 256]], h100().timing, TILE_FAMILIES["fine"])
    assert found.split[0] > 1
    assert found.split[1] == 1


@pytest.mark.parametrize(
    ("bad", "told"),
    [([[0, 1, 1]], "GEMM 0: .* at least 1"), ([[1.5, 2, 3]], "expected integers"), ([[1, 2]], "ops, 3")],
)
def test_bad_shapes_are_told(bad: list[list[float]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        predict(bad, START, TILE_FAMILIES["coarse"])


def test_fit_recovers_a_device_it_has_not_seen() -> None:
    secret = START._replace(launch_s=3e-6, sm_flops=6e12, dram=1.5e12, l2=8e12, overlap=4)
    mnk = shapes(500, seed=3)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.02, len(mnk)))
    seconds = predict(mnk, secret, TILE_FAMILIES["fine"]) * noise
    rows = spread(mnk, 200)
    model = fit(mnk[rows], seconds[rows], HOPPER, families=("fine",))
    rest = np.setdiff1d(np.arange(len(mnk)), rows)
    truth = predict(mnk[rest], secret, TILE_FAMILIES["fine"])
    assert np.abs(model.predict(mnk[rest]) / truth - 1).mean() < 0.04


def test_correction_takes_up_what_the_form_cannot_say() -> None:
    mnk = shapes(400, seed=5)
    seconds = predict(mnk, START, TILE_FAMILIES["fine"]) * (1 + 0.2 * np.sin(np.log2(mnk[:, 1])))
    rows = spread(mnk, 200)
    model = fit(mnk[rows], seconds[rows], HOPPER, families=("fine",))
    rest = np.setdiff1d(np.arange(len(mnk)), rows)
    with_it = np.abs(model.predict(mnk[rest]) / seconds[rest] - 1).mean()
    without = np.abs(GemmModel(model.timing, model.tile_family).predict(mnk[rest]) / seconds[rest] - 1).mean()
    assert with_it < 0.6 * without
    far = np.array([[1 << 40, 1 << 20, 1 << 19]])
    assert abs(model.correction.log_factor(far)[0]) < 0.02


def test_fit_refuses_too_little_and_nonsense() -> None:
    mnk = shapes(60)
    with pytest.raises(InputError, match="too few"):
        fit(mnk[:10], np.ones(10), HOPPER)
    with pytest.raises(InputError, match="GEMM 3 is not a positive"):
        fit(mnk, np.where(np.arange(60) == 3, -1.0, 1.0), HOPPER)


def test_spread_is_by_shape_alone_and_at_most_half() -> None:
    mnk = shapes(1000)
    rows = spread(mnk)
    assert len(rows) == 400 == len(set(rows.tolist()))
    assert len(spread(mnk[:100])) == 50
    assert np.array_equal(rows, spread(mnk))


def test_carry_to_itself_changes_nothing_and_bandwidth_only_dram() -> None:
    assert carry(START, HOPPER, HOPPER) == pytest.approx(START)
    wider = carry(START, HOPPER, HOPPER._replace(dram=2 * HOPPER.dram))
    assert wider == pytest.approx(START._replace(dram=2 * START.dram))
    faster = carry(START, HOPPER, HOPPER._replace(clock_hz=2 * HOPPER.clock_hz))
    assert faster.prologue_s == START.prologue_s / 2
    assert faster.l2 == 2 * START.l2


def test_h200_is_h100_carried() -> None:
    own, other = (params_of(load_arch(name)) for name in ("h100_sxm", "h200_sxm"))
    carried = carry(model_of(own, 16).timing, HOPPER, HOPPER._replace(dram=4.8e12))
    for name, value in model_of(other, 16).timing._asdict().items():
        assert value == pytest.approx(getattr(carried, name), rel=1e-3), name


@pytest.mark.parametrize(
    ("name", "sms", "mhz", "gb_s", "l2_mb", "tflops", "limit_w"),
    [
        ("a100_sxm", 108, 1410, 2039, 40, 312, 400),
        ("h100_sxm", 132, 1980, 3350, 50, 989, 700),
        ("h200_sxm", 132, 1980, 4800, 50, 989, 700),
        ("b200", 148, 1965, 7700, 126, 2250, 1000),
        ("l4", 60, 2040, 300, 48, 121, 72),
        ("l40s", 142, 2520, 864, 96, 362, 350),
        ("rtx_4090", 128, 2520, 1008, 72, 165, 450),
        ("agx_orin_64", 16, 1300, 205, 4, 42, 60),
    ],
)
def test_devices_have_their_data_sheets_figures(
    name: str, sms: int, mhz: float, gb_s: float, l2_mb: float, tflops: float, limit_w: float
) -> None:
    arch = load_arch(name)
    params: GpuParams = params_of(arch)
    assert (params.sms, params.limit_w, params.peak_flops) == (sms, limit_w, tflops * 1e12)
    assert arch.clock_hz == pytest.approx(mhz * 1e6)
    assert float(arch.memory.bandwidth.value) == pytest.approx(gb_s * 1e9)
    assert float(arch.memory.activation_buffer.value) == pytest.approx(l2_mb * 1e6)
    op = Op("down", 0, 64, 1536, 384, activation=PackedMask.bernoulli(64, 1536, 0.1, 0), batch=8)
    counts = simulate(op, arch)
    assert 0 < counts.cycles <= counts.dense_cycles
    assert counts.dram_bytes > 0
    assert counts.stall_cycles == 0


def test_union_and_runs_are_those_of_the_rows() -> None:
    mask = PackedMask.bernoulli(13, 200, 0.2, 1)
    dense = mask.to_bool()
    starts = np.array([0, 4, 5, 13])
    found = union_rows(mask.words, starts)
    for group, (first, stop) in enumerate(pairwise(starts)):
        seen = dense[first:stop].any(axis=0)
        assert found.rows[group] == seen.sum()
        assert found.runs[group] == (np.diff(np.concatenate(([0], seen.astype(int)))) == 1).sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150), st.sampled_from([16, 32, 64, 128]), st.integers(0, 5))
def test_live_blocks_are_those_with_a_non_zero(k: int, block: int, seed: int) -> None:
    mask = PackedMask.bernoulli(9, k, 0.03, seed)
    dense = mask.to_bool()
    starts = np.array([0, 2, 9])
    wanted = [sum(dense[a:b, first : first + block].any() for first in range(0, k, block)) for a, b in ((0, 2), (2, 9))]
    assert live_blocks(mask.words, starts, block, k).tolist() == wanted


def test_batch_union_comes_from_the_masks_not_from_independence() -> None:
    arch = load_arch("h100_sxm").with_(policy="gather")
    same = np.repeat(PackedMask.bernoulli(1, 11008, 0.2, 0).to_bool(), 8, axis=0)
    together = Op("down", 0, 8, 11008, 4096, activation=PackedMask.from_bool(same), batch=8)
    apart = Op("down", 0, 8, 11008, 4096, activation=PackedMask.bernoulli(8, 11008, 0.2, 1), batch=8)
    a, b = simulate(together, arch), simulate(apart, arch)
    assert a.actions["gather.row"] == pytest.approx(0.2 * 11008, rel=0.1)
    assert b.actions["gather.row"] == pytest.approx((1 - 0.8**8) * 11008, rel=0.02)
    assert a.cycles < b.cycles


def test_gather_time_is_a_line_in_density_and_bounded_by_bytes() -> None:
    timing = h100().timing
    density = np.array([0.2, 0.4, 0.6, 0.8])
    rows = density * 11008
    seconds = gather_seconds(rows, np.ones(4), 1, 11008, 4096, timing, 0.0)
    steps = np.diff(seconds)
    assert np.abs(steps / steps.mean() - 1).max() < 0.05
    assert steps.mean() == pytest.approx(0.2 * 11008 * 4096 * 2 / timing.dram, rel=0.1)
    broken = gather_seconds(rows, bernoulli_runs(rows, 11008), 1, 11008, 4096, timing, 1024.0)
    assert (broken > seconds).all()


def test_gathers_pay_at_low_density_and_never_cost_with_a_choice() -> None:
    arch = load_arch("h100_sxm")
    speedups = []
    for density in (0.05, 0.3, 0.95):
        op = Op("down", 0, 1, 11008, 4096, activation=PackedMask.bernoulli(1, 11008, density, 0), batch=1)
        counts = simulate(op, arch)
        speedups.append(counts.dense_cycles / counts.cycles)
    assert speedups == sorted(speedups, reverse=True)
    assert speedups[0] > 2
    assert speedups[-1] == 1


def test_zero_operands_cost_less_energy_but_no_less_time_in_a_dense_kernel() -> None:
    arch = load_arch("h100_sxm").with_(policy="dense")
    mask = PackedMask.bernoulli(256, 1024, 0.3, 0)
    sparse, dense = (simulate(Op("down", 0, 256, 1024, 512, activation=a), arch) for a in (mask, None))
    assert sparse.cycles == dense.cycles
    assert sparse.actions["tensor.flop"] == 2 * mask.popcount() * 512
    assert sparse.actions["tensor.flop"] + sparse.actions["tensor.zero_flop"] == dense.actions["tensor.flop"]
    table = load_table("default_45nm")
    assert table.price(arch, "tensor.zero_flop").pj < table.price(arch, "tensor.flop").pj


def test_output_masks_gather_rows_of_up() -> None:
    arch = load_arch("h100_sxm").with_(policy="gather")
    needed = PackedMask.bernoulli(4, 11008, 0.1, 0)
    counts = simulate(Op("up", 0, 4, 4096, 11008, output=needed, batch=1), arch)
    assert counts.actions["gather.row"] == needed.popcount()
    assert counts.cycles < simulate(Op("up", 0, 4, 4096, 11008, batch=1), arch).cycles


@pytest.mark.parametrize(("change", "told"), [({"policy": "gathr"}, "gather"), ({"tile_family": "fin"}, "fine")])
def test_unknown_choices_name_the_nearest(change: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        simulate(Op("down", 0, 1, 64, 64), load_arch("h100_sxm").with_(**change))


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"'dram' = 0\.0, must be positive"):
        simulate(Op("down", 0, 1, 64, 64), load_arch("h100_sxm").with_(dram=0.0))


def test_fit_gather_recovers_its_own_figures() -> None:
    rng = np.random.default_rng(0)
    density = rng.choice([1.0, 0.5, 0.2, 0.1, 0.05], 200)
    total = rng.choice([1536, 3072, 11008, 14336], 200)
    rows = density * total
    runs = bernoulli_runs(rows, 1) * 0 + rows * (1 - density) + 1
    launches = Launches(rows, runs, rng.choice([1.0, 4.0, 16.0], 200), total, rng.choice([384, 768, 4096], 200))
    secret = h100().timing._replace(dram=2.2e12, launch_s=3e-6)
    seconds = predict_gathers(launches, secret, 700.0)
    timing, page = fit_gather(launches, seconds, h100().timing, 1024.0)
    assert np.abs(predict_gathers(launches, timing, page) / seconds - 1).max() < 0.03
    assert timing.dram == pytest.approx(2.2e12, rel=0.1)


def test_gated_mlp_speedup_tends_to_the_share_of_bytes() -> None:
    timing = h100().timing._replace(launch_s=1e-12, prologue_s=1e-12, split_s=1e-12, step_s=1e-15, l2=1e18, split=1e18)
    model = GemmModel(timing._replace(sm_fill=1e18, sm_flops=1e18, sustained_flops=1e18), "fine")
    active = np.array([14336.0, 14336 * 0.1])
    dense, sparse = gated_mlp_seconds(active, np.ones(2), 4096, 14336, model, 0.0)
    assert dense / sparse[0] == pytest.approx(1.0, rel=0.05)
    assert dense / sparse[1] == pytest.approx(3 / 1.2, rel=0.08)


def test_energy_terms_are_recovered_and_never_negative() -> None:
    rng = np.random.default_rng(0)
    seconds, flop, moved = rng.uniform(1e-3, 1, 40), rng.uniform(1e9, 1e14, 40), rng.uniform(1e6, 1e11, 40)
    truth = EnergyModel(100.0, 0.7, 200.0)
    found = fit_energy(seconds, flop, moved, truth.predict(seconds, flop, moved))
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    free = EnergyModel(100.0, 0.7, 0.0).predict(seconds, flop, moved) * rng.normal(1, 0.01, 40)
    assert fit_energy(seconds, flop, moved, free).byte_pj >= 0
    with pytest.raises(InputError, match="too few"):
        fit_energy(seconds[:2], flop[:2], moved[:2], free[:2])


def test_rooflines_are_what_they_say() -> None:
    sheet = DataSheet(1, 1e9, 1e12, 1e14)
    assert naive_roofline(sheet).predict([[1000, 1000, 1000]])[0] == pytest.approx(2e9 / 1e14)
    assert naive_roofline(sheet).predict([[1, 1000, 1000]])[0] == pytest.approx(2 * (1000 + 1000000 + 1000) / 1e12)
    truth = Roofline(5e-6, 6e13, 8e11)
    mnk = shapes(200)
    np.testing.assert_allclose(calibrated_roofline(mnk, truth.predict(mnk), sheet), truth, rtol=1e-3)


def test_many_ops_a_second() -> None:
    model, mnk = h100(), shapes(200_000)
    assert len(np.unique(mnk, axis=0)) > 0.9 * len(mnk)
    model.predict(mnk[:10])
    begun = time.process_time()  # of all threads; what other programs take of the cores does not count
    model.predict(mnk)
    rate = len(mnk) / (time.process_time() - begun)
    assert rate > 2e5, f"{rate:.0f} ops a second of one core"


def test_keys_of_a_group_of_query_heads_are_read_once() -> None:
    arch = load_arch("h100_sxm")
    apart = simulate(Op("scores", 0, 1, 128, 8192, repeat=64, has_weight=False), arch)
    grouped = simulate(Op("scores", 0, 1, 128, 8192, repeat=64, shared=8, has_weight=False), arch)
    assert apart.dram_bytes == 2 * 64 * (128 + 128 * 8192 + 8192)
    assert grouped.dram_bytes == 2 * (64 * (128 + 8192) + 8 * 128 * 8192)
    assert grouped.macs == apart.macs
    # bound by bandwidth, so the time follows the bytes
    assert 0.1 < grouped.cycles / apart.cycles < 0.3
