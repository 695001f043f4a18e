"""Meters without devices: what they say, what they find flawed, and a counter that ticks."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch

from simkit.errors import InputError, UnavailableError
from simkit.measure import meters
from simkit.measure.meters import NvmlMeter, Reading, ReplayMeter, require_cuda, sane


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
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: int(clock.counter * 1e3)
    nvml.nvmlDeviceGetClockInfo = lambda handle, kind: 1980
    nvml.nvmlDeviceGetTemperature = lambda handle, kind: 50
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
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
    assert found.seconds == pytest.approx(0.01, rel=0.05)
    assert found.joules == pytest.approx(3.0, rel=0.05)
    assert found.idle_w == pytest.approx(100.0, rel=0.05)
    assert found.reading == Reading(1.98e9, 50.0, 0)


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
