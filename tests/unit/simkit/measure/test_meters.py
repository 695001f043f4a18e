"""Meters without devices: what they say, what they find flawed, and a counter that ticks."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from simkit.errors import InputError, UnavailableError
from simkit.measure import meters
from simkit.measure.meters import NvmlMeter, Powers, Reading, ReplayMeter, energy_meter, require_cuda, sane


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_no_cuda_is_one_line() -> None:
    with pytest.raises(UnavailableError, match="no CUDA device"):
        require_cuda()


def test_no_nvml_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="nvidia-ml-py is not installed"):
        NvmlMeter()


class _Clock:
    """A device that draws 300 W at work and 100 W idle, its counter moving every 100 ms of its own time."""

    def __init__(self) -> None:
        self.now, self.joules, self.counter, self.ticked = 0.0, 0.0, 0.0, 0.0
        self.milliwatts: dict[int, int | None] = {0: 300_000, 1: 340_000, 2: 70_000}

    def fields(self, handle: int, wanted: list[tuple[int, int]]) -> list[SimpleNamespace]:
        """Instant power by scope; one that the board does not measure is answered with an error code."""
        assert {field for field, _ in wanted} == {186}
        told = [self.milliwatts[scope] for _, scope in wanted]
        return [
            SimpleNamespace(nvmlReturn=0 if mw is not None else 3, value=SimpleNamespace(uiVal=mw or 0)) for mw in told
        ]

    def spend(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self.joules += watts * seconds
        if self.now - self.ticked >= 0.1:
            self.counter, self.ticked = self.joules, self.now


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    nvml: Any = ModuleType("pynvml")
    nvml.NVMLError = type("NVMLError", (Exception,), {})
    nvml.NVML_CLOCK_SM = nvml.NVML_TEMPERATURE_GPU = 0
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}"
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: int(clock.counter * 1e3)
    nvml.nvmlDeviceGetClockInfo = lambda handle, kind: 1980
    nvml.nvmlDeviceGetTemperature = lambda handle, kind: 50
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0
    nvml.NVML_FI_DEV_POWER_INSTANT = 186
    nvml.NVML_POWER_SCOPE_GPU, nvml.NVML_POWER_SCOPE_MODULE, nvml.NVML_POWER_SCOPE_MEMORY = 0, 1, 2
    nvml.nvmlDeviceGetFieldValues = clock.fields
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(meters, "computing_board", lambda nvml: 2)
    monkeypatch.setattr(meters, "find_spec", lambda name: True)
    monkeypatch.setattr(meters.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(meters.time, "sleep", lambda seconds: clock.spend(seconds, 100.0))
    fake_torch: Any = ModuleType("torch")
    fake_torch.cuda = ModuleType("torch.cuda")
    fake_torch.cuda.synchronize = lambda: None
    monkeypatch.setattr(meters, "require_cuda", lambda: fake_torch)
    return clock


def test_energy_is_read_between_ticks_and_idle_beside_it(device: _Clock) -> None:
    found = NvmlMeter().energy(lambda: device.spend(0.01, 300.0))
    assert found.seconds == pytest.approx(0.01, rel=1e-3)  # the wait for the last tick is no work, nor its energy
    assert found.joules == pytest.approx(3.0, rel=1e-3)
    assert found.idle_w == pytest.approx(100.0, rel=1e-3)
    assert found.reading == Reading(1.98e9, 50.0, 0)


def test_power_of_the_memory_is_told_apart_where_the_driver_offers_it(device: _Clock) -> None:
    meter = NvmlMeter()
    assert meter.powers() == Powers(300.0, 340.0, 70.0)
    work = lambda: device.spend(0.01, 300.0)  # noqa: E731
    assert meter.energy(work).powers == Powers(300.0, 340.0, 70.0)
    device.milliwatts[2] = None
    assert meter.energy(work).powers == Powers(300.0, 340.0, None)


def test_a_driver_without_the_field_gives_no_power_and_all_else(device: _Clock) -> None:
    meter = NvmlMeter()

    def refuse(handle: int, wanted: list[tuple[int, int]]) -> None:
        raise meter.nvml.NVMLError("not supported")

    meter.nvml.nvmlDeviceGetFieldValues = refuse
    found = meter.energy(lambda: device.spend(0.01, 300.0))
    assert found.powers == Powers(None, None, None)
    assert found.joules == pytest.approx(3.0, rel=0.05)


def test_what_a_container_hides_is_left_open(device: _Clock) -> None:
    meter = NvmlMeter()

    def refuse(*_: object) -> None:
        raise meter.nvml.NVMLError("insufficient permissions")

    meter.nvml.nvmlDeviceGetName = lambda handle: b"NVIDIA H100 80GB HBM3"
    meter.nvml.nvmlSystemGetDriverVersion = lambda: "570.1"
    meter.nvml.nvmlDeviceGetMaxClockInfo = lambda handle, kind: 1980
    meter.nvml.nvmlDeviceGetEnforcedPowerLimit = meter.nvml.nvmlDeviceGetComputeRunningProcesses = refuse
    assert meter.facts() == {
        "gpu": "NVIDIA H100 80GB HBM3",
        "driver": "570.1",
        "power_limit_w": None,
        "max_sm_clock_hz": 1.98e9,
        "processes": None,
    }


class _Monitor:
    """Zeus's monitor on the same device: exact joules between the ends of a window."""

    device: _Clock

    def __init__(self, gpu_indices: list[int]) -> None:
        assert gpu_indices == [1]
        self.open: dict[str, tuple[float, float]] = {}

    def begin_window(self, key: str) -> None:
        self.open[key] = self.device.joules, self.device.now

    def end_window(self, key: str) -> SimpleNamespace:
        joules, begun = self.open.pop(key)
        return SimpleNamespace(total_energy=self.device.joules - joules, time=self.device.now - begun)


def test_zeus_is_an_alternative(device: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    zeus: Any = ModuleType("zeus")
    zeus.monitor = ModuleType("zeus.monitor")
    zeus.monitor.ZeusMonitor = type("ZeusMonitor", (_Monitor,), {"device": device})
    monkeypatch.setitem(sys.modules, "zeus", zeus)
    monkeypatch.setitem(sys.modules, "zeus.monitor", zeus.monitor)
    zeus.device = ModuleType("zeus.device")
    boards = [SimpleNamespace(handle=3), SimpleNamespace(handle=2)]  # in zeus's order
    zeus.device.get_gpus = lambda: SimpleNamespace(gpus=boards)
    monkeypatch.setitem(sys.modules, "zeus.device", zeus.device)
    found = energy_meter("zeus").energy(lambda: device.spend(0.01, 300.0))
    assert found.joules == pytest.approx(3.0, rel=1e-9)
    assert found.seconds == pytest.approx(0.01, rel=1e-9)
    assert found.idle_w == pytest.approx(100.0, rel=1e-9)
    assert found.powers.memory_w == 70.0
    boards.pop()
    with pytest.raises(UnavailableError, match="zeus does not list the board that torch computes on"):
        energy_meter("zeus")


def test_energy_meters_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no energy meter 'zeuss'; did you mean 'zeus'"):
        energy_meter("zeuss")
    with pytest.raises(InputError, match="no energy meter 'replay'"):
        energy_meter("replay")  # answers, but measures nothing
    monkeypatch.setattr(meters, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"zeus is not installed; pip install 'zeroskip\[zeus\]'"):
        energy_meter("zeus")
    third = SimpleNamespace(name="mine", load=lambda: type("Mine", (), {"energy": lambda self: 1}))
    monkeypatch.setattr(meters, "entry_points", lambda group: [third] if group == "simkit.meters" else [])
    assert energy_meter("mine").energy() == 1


def test_a_counter_that_stands_still_is_told(device: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = NvmlMeter()
    ticks = itertools.count()
    monkeypatch.setattr(meters.time, "monotonic", lambda: next(ticks) * 0.5)
    monkeypatch.setattr(meters.time, "sleep", lambda seconds: None)
    with pytest.raises(UnavailableError, match="did not move"):
        meter.idle_watts()


def test_flaws_are_named() -> None:
    calm = Reading(1.9e9, 60.0, 0)
    assert sane([1.0, 1.01, 0.99, 1.0], calm) == ""
    assert "spread over" in sane([1.0, 2.0, 1.0, 2.0], calm)
    assert "throttled (reasons 0x40)" in sane([1.0, 1.0], calm._replace(throttle=0x40))
    assert sane([1.0, 1.0], calm._replace(throttle=meters.POWER_CAP)) == ""
    assert sane([0.0, 0.0]) == "no time"


def test_replay_answers_from_one_stored_row() -> None:
    meter = ReplayMeter(pd.DataFrame({"kernel": ["a", "b", "b"], "m": [1, 1, 2], "seconds": [1.0, 2.0, 3.0]}))
    assert meter.lookup(kernel="b", m=2)["seconds"] == 3.0
    with pytest.raises(InputError, match="2 stored measurements match kernel=b"):
        meter.lookup(kernel="b")
    with pytest.raises(InputError, match="no column 'batch'"):
        meter.lookup(batch=1)
