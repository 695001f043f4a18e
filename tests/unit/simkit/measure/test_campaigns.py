"""Campaigns resume, mark what failed, and become bundles; bundles of another schema are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from simkit.errors import CorruptError, InputError, UnavailableError
from simkit.measure import bundle, campaigns, gpu_campaigns, measure, pending, read_bundle, write_bundle
from simkit.measure.points import CAMPAIGNS, Campaign, energy_points, gemm_points, smoke_points, sparse_points
from simkit.measure.variants import VARIANTS


def counting(count: int, seen: list[int]) -> Campaign:
    def measure(point: dict[str, object]) -> dict[str, object]:
        number = int(str(point["i"]))
        seen.append(number)
        if number == 1:
            raise UnavailableError("not here")
        return {"seconds": float(number + 1)}

    return Campaign([{"i": i} for i in range(count)], measure, {})


def test_a_stopped_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = bundle.Journal(tmp_path / "dev" / "calibrate.parquet")
    seen: list[int] = []
    assert campaigns._go(counting(5, seen), journal, 0.0, "calibrate") is None
    assert seen == [0]
    with journal.path.open("a") as file:
        file.write('{"point": "i=')  # killed in the middle of a line
    rows = campaigns._go(counting(5, seen), journal, 60.0, "calibrate")
    assert seen == [0, 1, 2, 3, 4]
    assert rows is not None
    assert [row["flaw"] for row in rows] == ["", "not here", "", "", ""]
    assert len(journal.rows()) >= 1


def test_a_device_that_no_longer_answers_ends_the_campaign(tmp_path: Path) -> None:
    def lost() -> None:
        raise UnavailableError("the GPU no longer answers")

    seen: list[int] = []
    journal = bundle.Journal(tmp_path / "dev" / "calibrate.parquet")
    with pytest.raises(UnavailableError, match="no longer answers"):
        campaigns._go(replace(counting(5, seen), alive=lost), journal, 60.0, "calibrate")
    assert [row["flaw"] for row in journal.rows()] == ["", "not here"]  # the next run leaves this point alone
    assert campaigns._go(counting(5, seen), journal, 60.0, "calibrate") is not None
    assert seen == [0, 1, 2, 3, 4]


def test_what_a_compiler_refuses_is_marked_and_a_mistake_of_ours_is_not() -> None:
    refused = type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})

    def measured(error: Exception) -> dict[str, object]:
        def fail(point: dict[str, object]) -> dict[str, object]:
            raise error

        return campaigns._measured(Campaign([], fail, {}), {})

    assert measured(refused("shared memory"))["flaw"] == "OutOfResources: shared memory"
    assert measured(RuntimeError())["flaw"] == "RuntimeError: "
    with pytest.raises(KeyError):
        measured(KeyError("k"))


@pytest.mark.parametrize(
    ("name", "sms", "told"),
    [
        ("NVIDIA H100 80GB HBM3", 132, ""),
        ("NVIDIA H100 PCIe", 114, "has 114 SMs, h100_sxm has 132"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 16, "a slice of one"),
        ("NVIDIA T4", 40, "has no arch"),
    ],
)
def test_the_gpu_at_hand_is_the_whole_one_of_its_arch(
    name: str, sms: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = SimpleNamespace(
        current_device=lambda: 1,
        get_device_name=["another GPU", name].__getitem__,
        get_device_properties=[None, SimpleNamespace(multi_processor_count=sms)].__getitem__,
    )
    monkeypatch.setattr(gpu_campaigns, "require_cuda", lambda: SimpleNamespace(cuda=cuda))
    if not told:
        assert gpu_campaigns.gpu_here(None) == "h100_sxm"
        return
    with pytest.raises(InputError, match=told):
        gpu_campaigns.gpu_here(None)


def test_bundle_round_trip_keeps_rows_and_provenance(tmp_path: Path) -> None:
    path = write_bundle(
        tmp_path / "l4" / "sparse.parquet", [{"seconds": 1.0, "raw_seconds": [1.0, 2.0]}], {"driver": "1"}
    )
    frame, provenance = read_bundle("l4", "sparse", tmp_path)
    assert path.stat().st_size < bundle.MOST_BYTES
    assert frame["raw_seconds"][0].tolist() == [1.0, 2.0]
    assert provenance == {"driver": "1"}
    assert not list(tmp_path.glob("**/*.part"))


def test_bundles_that_cannot_be_used_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no bundle of 'sparse' for l4; run: simkit measure sparse"):
        read_bundle("l4", "sparse", tmp_path)
    where = tmp_path / "l4"
    where.mkdir()
    meta = {bundle.META_KEY: json.dumps({"schema": 99, "provenance": {}})}
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(meta), where / "sparse.parquet")
    with pytest.raises(CorruptError, match="schema 99, this version reads 1"):
        read_bundle("l4", "sparse", tmp_path)
    (where / "sparse.parquet").write_bytes(b"nothing")
    with pytest.raises(CorruptError, match="cannot be read"):
        read_bundle("l4", "sparse", tmp_path)
    with pytest.raises(InputError, match="nothing was measured"):
        write_bundle(where / "energy.parquet", [], {})
    monkeypatch.setattr(bundle, "MOST_BYTES", 10)
    with pytest.raises(InputError, match="more than 10 MB"):
        write_bundle(where / "energy.parquet", [{"seconds": 1.0}], {})
    assert not (where / "energy.parquet").exists()


def test_pending_names_every_gpu_and_drops_what_exists(tmp_path: Path) -> None:
    missing = pending(tmp_path)
    pairs = {(row["device"], row["campaign"]) for row in missing}
    assert {("h100_sxm", name) for name in CAMPAIGNS} <= pairs
    assert len(pairs) == len(missing)
    assert {row["campaign"] for row in missing if row["device"] == "cpu"} == {"smoke", "calibrate", "energy", "record"}
    write_bundle(tmp_path / "h100_sxm" / "smoke.parquet", [{"seconds": 1.0}], {})
    assert pairs - {(row["device"], row["campaign"]) for row in pending(tmp_path)} == {("h100_sxm", "smoke")}


@pytest.mark.slow
def test_smoke_on_the_processor_becomes_a_bundle(tmp_path: Path) -> None:
    path = measure("smoke", device="cpu", out=tmp_path)
    assert path == tmp_path / "cpu" / "smoke.parquet"
    frame, provenance = read_bundle("cpu", "smoke", tmp_path)
    assert (frame["flaw"] == "").all()
    assert (frame["error"] < 1e-4).all()
    assert provenance["campaign"] == "smoke"
    assert "numpy" in provenance["versions"]
    assert not list(tmp_path.glob("**/*.jsonl"))


def test_unknown_campaigns_and_absent_devices_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'sparse'"):
        measure("spars", out=tmp_path)
    with pytest.raises(InputError, match="is for GPUs"):
        measure("sparse", device="cpu", out=tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(UnavailableError, match="no CUDA device"):
            measure("smoke", out=tmp_path)


def test_points_are_distinct_and_known() -> None:
    for points in (sparse_points(("bernoulli", "recorded")), smoke_points(), energy_points(), gemm_points()):
        keys = [campaigns._key_text(point) for point in points]
        assert len(set(keys)) == len(keys)
        assert all(point["kernel"] in VARIANTS for point in points if point["op"] == "sparse")
    sparse = pd.DataFrame(sparse_points())
    assert set(sparse["density"]) == {1.0, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01}
    assert set(sparse["m"]) == {1, 2, 4, 8, 16, 64, 256, 1024}
    assert set(zip(sparse["k"], sparse["n"], strict=True)) == {(1536, 384), (3072, 768), (11008, 4096), (14336, 4096)}
    assert set(VARIANTS) - set(sparse["kernel"]) == {"pack"}


def test_gemms_to_calibrate_on_span_the_bands() -> None:
    tokens = np.array([point["m"] for point in gemm_points()])
    for low, high in ((1, 16), (16, 128), (128, 1024), (1024, 8192)):
        assert ((tokens >= low) & (tokens <= high)).sum() > 40
