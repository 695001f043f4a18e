"""The processor as a device: its kernel is exact, its plans disjoint, its scores honest about noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.gpu.calibrate import predict_gathers
from hwmodels.gpu.timing import TILE_FAMILIES, predict
from simkit.errors import UnavailableError
from simkit.measure import cpu
from simkit.measure.bundle import write_bundle
from simkit.measure.cpu import CpuMeasurement, dense_plan, gather_matmul, sparse_plan
from simkit.validation import cpu as cpu_scores
from simkit.validation.bundles import bundle_predictions, validate_bundle
from simkit.validation.cpu import DataSheet, cpu_start, score_cpu


@pytest.mark.parametrize(("m", "k", "n", "rows"), [(1, 50, 17, 0), (1, 50, 300, 3), (5, 97, 530, 41), (8, 64, 16, 64)])
def test_gather_is_the_product_of_the_named_rows(m: int, k: int, n: int, rows: int) -> None:
    rng = np.random.default_rng()
    x, w = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32)
    index = np.sort(rng.choice(k, rows, replace=False))
    out = np.full((m, n), np.nan, dtype=np.float32)
    gather_matmul(x, index, w, out)
    np.testing.assert_allclose(out, x[:, index].astype(float) @ w[index].astype(float), atol=1e-4)


def test_plans_never_repeat_a_shape() -> None:
    for plan in (dense_plan(0, 150), sparse_plan(0, 150)):
        assert len(set(plan)) == 150
    assert all(1 <= s.rows <= s.k and 1 <= s.runs <= s.rows for s in sparse_plan(0, 150))


def synthetic(noise: float, passes: int = 6) -> CpuMeasurement:
    """A processor that behaves as the model says, with noise that only adds time."""
    rng = np.random.default_rng(0)
    timing = cpu_start(DataSheet(2, 2e9, 2e10, 1.5e11))
    dense, sparse = dense_plan(0, 150), sparse_plan(1, 150)
    dense_s = predict(np.array(dense), timing, TILE_FAMILIES["micro"])
    sparse_s = predict_gathers(cpu_scores._launches(sparse), timing, 500.0)

    def repeats(seconds: np.ndarray) -> np.ndarray:
        return seconds * (1 + rng.exponential(noise, (passes, len(seconds))))

    return CpuMeasurement(dense, repeats(dense_s), sparse, repeats(sparse_s), None, 2)


def test_scores_of_a_processor_that_obeys_the_model() -> None:
    rows = {(row["set"], row["model"]): row for row in score_cpu(synthetic(0.02))}
    for name in ("cpu dense", "cpu gather"):
        row = rows[name, "calibrated"]
        assert row["mape_percent"] < 5
        assert row["mape_percent"] < rows[name, "naive_roofline"]["mape_percent"]
        assert row["rows_fit"] + row["rows_scored"] + row["left_out"] == 150
        assert row["floor_percent"] < 3


def test_a_busy_machine_is_told_and_unsteady_shapes_left_out() -> None:
    steady = synthetic(0.02)
    steady.dense_raw[::2, :30] *= 3
    rows = score_cpu(steady)
    assert rows[0]["left_out"] == 30
    with pytest.raises(UnavailableError, match="measure again when it is idle"):
        score_cpu(synthetic(30.0))


def test_repeats_keep_the_least_and_rotate_the_weights() -> None:
    calls: list[int] = []
    times = iter([5.0, 3.0, 4.0, 2.0, 6.0, 7.0])

    def case() -> float:
        calls.append(1)
        return next(times)

    raw = cpu.measure([case], 0.0, least_passes=2)
    assert raw.min() == 2.0
    assert len(calls) == 5
    first, second = (cpu._rotation().next(64, 64) for _ in range(2))
    assert not np.shares_memory(first, second)


def test_rapl_is_said_to_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "RAPL", tmp_path / "none")
    with pytest.raises(UnavailableError, match="no readable RAPL"):
        cpu.rapl_joules()
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("2500000\n")
    monkeypatch.setattr(cpu, "RAPL", tmp_path)
    assert cpu.rapl_joules() == pytest.approx(2.5)


def bundled(found: CpuMeasurement, threads: int) -> dict[str, object]:
    frame = found.frame()
    shapes = {f"shape_{name}": frame[name].tolist() for name in frame}
    return {"point": "0", "flaw": "", "seconds": 1.0, "threads": threads, **shapes}


def test_a_stored_processor_bundle_scores_as_well_as_a_fresh_one(tmp_path: Path) -> None:
    found = synthetic(0.02)
    write_bundle(tmp_path / "cpu" / "calibrate.parquet", [bundled(found, 2)], {})
    stored, fresh = (
        {(row["set"], row["model"]): row for row in rows}
        for rows in (validate_bundle("cpu", tmp_path), score_cpu(found))
    )
    assert set(stored) == set(fresh)
    for name in ("cpu dense", "cpu gather"):
        ours, theirs = stored[name, "calibrated"], fresh[name, "calibrated"]
        assert ours["mape_percent"] < 5
        assert (ours["rows_fit"], ours["rows_scored"]) == (theirs["rows_fit"], theirs["rows_scored"])
    table = bundle_predictions("cpu", tmp_path)
    assert len(table) == sum(stored[name, "calibrated"]["rows_scored"] for name in ("cpu dense", "cpu gather"))
    assert float((table["predicted"] / table["measured"] - 1).abs().mean()) < 0.05


def test_groups_of_a_bundle_are_mixed_and_no_shape_is_on_both_sides(tmp_path: Path) -> None:
    found = synthetic(0.02)
    slower = replace(found, dense_raw=found.dense_raw * 2, sparse_raw=found.sparse_raw * 2)
    merged = cpu_scores.from_frames([found.frame(), slower.frame()], 2)
    assert len(merged.dense) == len(set(merged.dense)) == 150
    assert sorted(merged.dense) == sorted(found.dense)
    assert merged.dense != found.dense
    # a group that a busy machine measured with one thread is not mixed with those of two
    rows = [bundled(found, 2), bundled(found, 2), bundled(slower, 1)]
    write_bundle(tmp_path / "cpu" / "calibrate.parquet", rows, {})
    assert {row["threads"] for row in validate_bundle("cpu", tmp_path)} == {2}
