"""The campaign that records: with the recorder that users run, on the processor too."""

from __future__ import annotations

from pathlib import Path

import pytest

import traces
from simkit.measure import measure, read_bundle, record_campaign
from simkit.measure.points import Point


@pytest.fixture
def small(tiny_model: str, tiny_data: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Point the campaign at a tiny model; gives what is recorded."""
    monkeypatch.setattr(record_campaign, "MODEL", tiny_model)
    monkeypatch.setattr(record_campaign, "DATA", tiny_data)
    monkeypatch.setattr(record_campaign, "TUNING", "lora")
    monkeypatch.setattr(record_campaign, "SEQUENCES", 12)
    monkeypatch.setattr(record_campaign, "BATCHES", (4,))
    monkeypatch.setattr(record_campaign, "TURNS", 2)
    seen: list[dict[str, object]] = []
    record = traces.record
    monkeypatch.setattr(traces, "record", lambda **given: seen.append(given) or record(**given))
    return seen


def test_the_campaign_measures_the_recorder_itself(small: list[dict[str, object]], tmp_path: Path) -> None:
    assert measure("record", device="cpu", out=tmp_path, budget_s=60.0) == tmp_path / "cpu" / "record.parquet"
    frame, provenance = read_bundle("cpu", "record", tmp_path)
    assert (frame["flaw"] == "").all()
    assert provenance["campaign"] == "record"
    overhead, whole = (frame[frame["op"] == op].iloc[0] for op in ("overhead", "record"))
    assert [given["device"] for given in small] == ["cpu"] * 3
    assert [given.get("batch_size") for given in small] == [4, 4, None]
    assert small[-1]["adapter"] is not None
    assert overhead["measured_overhead"] == pytest.approx(overhead["seconds"] / overhead["plain_seconds"] - 1)
    assert 0 < overhead["overhead"] < overhead["overhead_one_core"]
    assert len(overhead["raw_plain_seconds"]) == len(overhead["raw_seconds"]) == 2
    assert overhead["tokens"] == whole["tokens"] > 12
    assert whole["tune_seconds"] > 0


def test_a_small_budget_keeps_what_was_measured(
    small: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[Point] = []
    real = record_campaign.measure_record

    def seen(point: Point, device: str) -> dict[str, object]:
        points.append(point)
        return real(point, device)

    monkeypatch.setattr(record_campaign, "measure_record", seen)
    assert measure("record", device="cpu", out=tmp_path, budget_s=0.0) is None
    assert measure("record", device="cpu", out=tmp_path, budget_s=0.0) is not None
    assert [point["op"] for point in points] == ["overhead", "record"]
