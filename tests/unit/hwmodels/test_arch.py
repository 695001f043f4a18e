"""Archs as values: variants, differences, identity."""

from __future__ import annotations

from hwmodels import Op, PackedMask, diff, load_arch, simulate


def test_variants_say_what_changed() -> None:
    base = load_arch("cnvlutin")
    wide = base.with_(lanes=32, memory__bandwidth="100 GB/s", clock="1 GHz")
    assert wide.name == "cnvlutin[lanes=32,memory.bandwidth=100 GB/s,clock=1 GHz]"
    assert wide.variant_of == "cnvlutin"
    assert wide.param("lanes") == 32
    assert wide.params["lanes"].status == "assumed"
    assert wide.params["lanes"].note == "was 16"
    assert wide.clock_hz == 1e9
    assert float(wide.memory.bandwidth.value) == 100e9
    assert diff(base, wide) == {
        "clock": (606e6, 1e9),
        "memory.bandwidth": (25.6e9, 100e9),
        "params.lanes": (16, 32),
    }
    assert diff(base, base) == {}
    assert base.hash == load_arch("cnvlutin").hash != wide.hash
    assert set(base.params) <= set(base.settable())


def test_ablation_changes_the_schedule() -> None:
    op = Op("x", 0, 16, 1024, 64, PackedMask.bernoulli(16, 1024, 0.3, 1))
    arch = load_arch("cnvlutin")
    lanes = [simulate(op, arch.with_(lanes=n)).cycles for n in (8, 16, 32)]
    assert lanes[0] > lanes[1] > lanes[2]
    # twice the lanes are less than twice as fast: more of them wait
    assert lanes[1] < 2 * lanes[2]


def test_utilisation_and_stalls_account_for_every_lane_cycle() -> None:
    op = Op("x", 0, 16, 1000, 300, PackedMask.bernoulli(16, 1000, 0.2, 1))
    for name, units in (("cnvlutin", 16), ("sparten_one_sided", 1024)):
        counts = simulate(op, load_arch(name))
        assert counts.unit_busy is not None
        assert len(counts.unit_busy) == units
        lost = sum(lanes for cause, lanes in counts.stalls.items() if cause != "dram")
        assert counts.unit_busy.sum() + lost == counts.cycles * units


def test_every_lane_cycle_of_scnn_and_sparten() -> None:
    weight = PackedMask.bernoulli(100, 200, 0.5, 2)
    op = Op("x", 0, 70, 200, 100, PackedMask.bernoulli(70, 200, 0.3, 1), weight)
    for name, units in (("scnn", 64), ("sparten", 1024)):
        counts = simulate(op, load_arch(name))
        assert counts.unit_busy is not None
        waiting = counts.stalls.get("barrier", 0) + counts.stalls.get("imbalance", 0)
        assert counts.unit_busy.sum() + waiting == counts.cycles * units
