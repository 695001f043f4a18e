"""Packing on CPU and on a device, the ring of pinned buffers, and the writer's thread."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import traces
from traces.errors import InputError, StorageError
from traces.models.sites import find_sites
from traces.recording.hooks import SiteTap
from traces.recording.pack_cpu import pack_cpu
from traces.recording.pack_gpu import _kernel, pack_device
from traces.recording.pinned_ring import Ring
from traces.recording.writer_thread import Worker
from traces.storage.bits import pack
from traces.storage.folder import Folder

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def awkward(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros of both signs, denormals, infinities and NaN among ordinary numbers."""
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns)).relu().to(dtype)
    special = (float("nan"), float("-inf"), -0.0, 1e-45, float("inf"), -1e-4, 6e-8)
    for i, value in enumerate(special):
        values[i % rows, (7 * i) % columns] = value
    return values


@pytest.mark.triton
@pytest.mark.parametrize("columns", [1, 63, 64, 100, 4500])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_packing_equals_torch(dtype: torch.dtype, columns: int) -> None:
    values = awkward(5, columns, dtype)
    bad = int((~torch.isfinite(values)).sum())
    for threshold in (0.0, 0.01, 0.5):
        wanted = pack(((values.abs() > threshold) if threshold else (values != 0)).numpy())
        packed, non_finite = pack_cpu(values, threshold)
        assert np.array_equal(packed, wanted)
        assert non_finite == bad
        found = torch.full((1,), 7, dtype=torch.int32)
        words = pack_device(values, threshold, found)
        assert np.array_equal(words.numpy().view(np.uint64), wanted)
        assert int(found) == 7 + bad


@pytest.mark.triton
def test_the_kernel_was_what_ran() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    assert _kernel() is not None


@pytest.mark.triton
def test_torch_alone_packs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = awkward(6, 130, torch.float32)
    bad, again = (torch.zeros(1, dtype=torch.int32) for _ in range(2))
    words, ones = pack_device(values, 0.0, bad), pack_device(values > 0.5, 0.0, bad)
    monkeypatch.setattr("traces.recording.pack_gpu._kernel", lambda: None)
    plain = pack_device(values, 0.0, again)
    assert plain.dtype == torch.int64
    assert words.dtype == ones.dtype == torch.int32
    assert np.array_equal(words.numpy().view(np.uint64), plain.numpy().view(np.uint64))
    assert np.array_equal(ones.numpy().view(np.uint64), pack((values > 0.5).numpy()))
    assert int(bad) == int(again) > 0


class Lagging:
    """A device whose copies happen only when an event is waited for: whoever reads early reads poison."""

    def __init__(self) -> None:
        self.inside = 0
        self.launched: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.buffers: list[torch.Tensor] = []
        self.waited = 0
        self.at_work = False

    def __enter__(self) -> Lagging:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def pinned(self, size: int) -> torch.Tensor:
        with torch.inference_mode(False):
            self.buffers.append(torch.full((size,), 0xAA, dtype=torch.uint8))
        return self.buffers[-1]

    @contextmanager
    def copying(self) -> Iterator[None]:
        self.inside += 1
        yield
        self.inside -= 1

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        assert self.inside == 1
        self.launched.append((target, source.clone()))

    def mark(self) -> Any:
        mine, self.launched = self.launched, []

        class Event:
            def synchronize(self) -> None:
                for target, source in mine:
                    target.copy_(source)

        return Event()

    def wait(self) -> None:
        self.waited += 1

    def idle(self) -> bool:
        return not self.at_work

    def stamp(self) -> Any:
        class Stamp:
            at = time.perf_counter()

            def elapsed_time(self, other: Any) -> float:
                return 1e3 * (other.at - self.at)

        return Stamp()


def test_a_ring_gives_each_sending_its_own_bytes() -> None:
    device = Lagging()
    ring = Ring(device, 3)
    sent = [{"a": torch.full((2, 3 + i), i, dtype=torch.int32), "b": torch.full((5,), i + 0.5)} for i in range(3)]
    waiting = [ring.send(tensors) for tensors in sent]
    for i in (2, 0, 1):
        found = waiting[i]()
        assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in sent[i].items()}
    assert ring.awaited > 0
    used = len(device.buffers)
    for tensors in sent * 4:
        assert ring.send(tensors)()["b"].tolist() == tensors["b"].tolist()
    assert len(device.buffers) == used  # buffers go round, none is made anew


def test_only_as_many_buffers_grow_as_are_in_use_at_once() -> None:
    device = Lagging()
    ring = Ring(device, 10)
    for _ in range(20):
        ring.send({"a": torch.zeros(5000)})()
    assert sorted(len(buffer) for buffer in device.buffers) == [1] * 10 + [1 << 15]


def test_a_device_records_what_the_cpu_does(tiny_model: str) -> None:
    model = traces.load_model(tiny_model)
    sites = find_sites(model)
    given = {"input_ids": torch.randint(4, 18, (3, 9), generator=torch.Generator().manual_seed(0))}
    packets = {}
    for name, device in (("cpu", None), ("device", Lagging())):
        tap = SiteTap(model, sites, ["0.01", "int8"], histogram=True, values="int8", device=device)
        with torch.inference_mode():
            model(**given)
        first = tap.take()
        with torch.inference_mode():
            model(input_ids=given["input_ids"][:2])
        second = tap.take()
        packets[name] = (first.receive(), second.receive(), tap.histograms())
        assert first.size_bytes > second.size_bytes
        assert tap.seconds > 0
        assert (tap.device_seconds > 0) == (device is not None)
        tap.close()
    for cpu, other in zip(packets["cpu"][:2], packets["device"][:2], strict=True):
        assert cpu[1] == other[1] == {}
        assert cpu[0].keys() == other[0].keys()
        for key, rows in cpu[0].items():
            assert rows.dtype == other[0][key].dtype
            assert np.array_equal(rows, other[0][key])
    assert packets["cpu"][2] == packets["device"][2]


def test_a_recording_through_a_device_equals_one_without(
    tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traces.recording.pack_gpu._kernel", lambda: None)  # the interpreter is slow, and tested above
    given = {"data": tiny_data, "limit": 6, "batch_size": 2, "progress": False}
    given |= {"int8": True, "thresholds": [0.01], "values": "bf16", "histogram": True}
    plain = traces.record(tiny_model, out=tmp_path / "plain.zarr", **given)
    device, calls = Lagging(), []
    monkeypatch.setattr("traces.recording.recorder.accelerator", lambda name: device)
    run_batch = traces.recording.recorder.run_batch
    monkeypatch.setattr("traces.recording.recorder.run_batch", lambda *a: calls.append(a[2]) or run_batch(*a))
    found = traces.record(tiny_model, out=tmp_path / "device.zarr", **given)
    assert found.hash == plain.hash
    assert found.attrs["histograms"] == plain.attrs["histograms"]
    assert calls == [2, 0, 1, 2]  # the largest once more at first, so that no clock sees a compiler
    assert device.waited == 1  # for the last pass alone
    facts = found.attrs["recorder"]
    assert facts["device_seconds"] > 0
    assert facts["write_seconds"] > 0


def test_a_wait_while_the_device_had_work_held_nothing_up() -> None:
    for held_up in (True, False):
        with Worker(jobs=1, held_up=lambda held_up=held_up: held_up) as worker:
            for _ in range(3):
                worker.put(lambda: time.sleep(0.05))
        assert (worker.waited > 0.05) == held_up


def test_a_gpu_too_small_is_one_line(
    tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("traces.recording.recorder.run_batch", full)
    with pytest.raises(InputError, match="--batch-size 2: a forward pass does not fit into the GPU's memory"):
        traces.record(tiny_model, data=tiny_data, limit=4, batch_size=2, out=tmp_path / "t.zarr", progress=False)


def test_jobs_are_done_in_order_on_another_thread() -> None:
    done: list[tuple[int, int]] = []
    with Worker() as worker:
        for i in range(50):
            worker.put(lambda i=i: done.append((i, threading.get_ident())))
    assert [i for i, _ in done] == list(range(50))
    assert {thread for _, thread in done} != {threading.get_ident()}


@pytest.mark.parametrize(("jobs", "size_bytes"), [(3, 1 << 30), (100, 300)])
def test_what_waits_is_bounded(jobs: int, size_bytes: int) -> None:
    gate, begun = threading.Event(), 0
    handed = []

    def slow() -> None:
        nonlocal begun
        begun += 1
        gate.wait(10)

    with Worker(jobs, size_bytes) as worker:

        def produce() -> None:
            for i in range(6):
                worker.put(slow, 100)
                handed.append(i)

        producer = threading.Thread(target=produce)
        producer.start()
        deadline = time.monotonic() + 5
        while len(handed) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.1)
        assert (len(handed), begun) == (3, 1)  # one at work and two that wait: no more memory than that
        gate.set()
        producer.join()
    assert begun == 6
    assert worker.waited > 0.05


def test_an_error_of_the_thread_reaches_the_caller_and_ends_the_work() -> None:
    done: list[int] = []

    def fail() -> None:
        raise StorageError("the disk is full")

    def go_on(worker: Worker) -> None:
        for i in range(1000):
            worker.put(lambda i=i: done.append(i))
            time.sleep(0.001)

    worker = Worker()
    worker.put(fail)
    with pytest.raises(StorageError, match="the disk is full"):
        go_on(worker)
    with pytest.raises(StorageError), worker:
        pass
    assert not done


def test_a_full_disk_in_the_thread_is_one_line_and_what_was_finished_stands(
    tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"data": tiny_data, "limit": 24, "batch_size": 2, "progress": False}
    whole = traces.record(tiny_model, out=tmp_path / "whole.zarr", **given)
    monkeypatch.setattr("traces.recording.recorder.COMMIT_SECONDS", 0.0)
    write, calls = Folder.write, []

    def full(self: Folder, key: str, data: bytes) -> None:
        if threading.current_thread() is not threading.main_thread():
            calls.append(key)
            if len(calls) > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(self, key, data)

    out = tmp_path / "t.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", full)
        with pytest.raises(StorageError, match=r"No space left.*rows are kept: free space and run the same command"):
            traces.record(tiny_model, out=out, **given)
    left = traces.open_trace(out)
    left.verify()
    assert 0 < left.rows < whole.rows
    assert traces.record(tiny_model, out=out, **given).hash == whole.hash


def test_the_recorder_reports_what_it_cost(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    facts = traces.record(tiny_model, data=tiny_data, limit=8, out=tmp_path / "t.zarr", progress=False).attrs[
        "recorder"
    ]
    assert 0 < facts["hook_seconds"] < facts["forward_seconds"]
    added = facts["hook_seconds"] + facts["wait_seconds"]
    assert facts["overhead"] == pytest.approx(added / (facts["forward_seconds"] - added))
    assert facts["overhead_one_core"] > facts["overhead"]
