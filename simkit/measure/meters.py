"""Meters: time by CUDA events and graphs, energy by the device's own counter, and stored measurements.

Energy is read as the counter allows: it moves about every 100 ms, so a kernel is looped for seconds between two of its
ticks, after a warm-up, and what the device draws idle at boost clock with a context alive is measured beside it.
Clocks, limits and modes are read, never set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from hwmodels.errors import nearest

from ..errors import InputError, UnavailableError
from .boards import computing_board, text_of

WARM_S, LOOP_S, COOL_S = 2.0, 5.0, 1.0
TICK_TIMEOUT_S = 2.0
# nvmlClocksThrottleReasons bits that make a measurement one of another machine: power brake and thermal slow-downs.
BAD_THROTTLE = 0x8 | 0x20 | 0x40 | 0x80
POWER_CAP = 0x4


class Reading(NamedTuple):
    """State of a device at one moment: SM clock (Hz), temperature (deg C), throttle reasons (bits)."""

    sm_clock_hz: float
    temperature_c: float
    throttle: int


class Powers(NamedTuple):
    """Power at one moment by scope, W: the GPU, its whole module, its memory; None where the driver does not tell."""

    gpu_w: float | None
    module_w: float | None
    memory_w: float | None


class Energy(NamedTuple):
    """Joules of one call, seconds of one call, idle watts, mean power by scope, and the state at the end."""

    joules: float
    seconds: float
    idle_w: float
    powers: Powers
    reading: Reading


class Window(NamedTuple):
    """Joules between two ticks, the seconds at work and then idle until the second, and calls."""

    joules: float
    busy_s: float
    idle_s: float
    calls: int


class Meter(Protocol):
    """Anything that times a function; third parties register one under ``simkit.meters``."""

    name: str

    def seconds(self, runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
        """Seconds of one call, `repeats` times; the runs are taken in turn (rotated operands)."""
        ...


def require_cuda() -> Any:
    """Return torch with a CUDA device.

    Raises
    ------
    UnavailableError
        If torch sees none.
    """
    if find_spec("torch") is None:
        raise UnavailableError("torch is not installed; GPU campaigns need it, with a CUDA device")
    import torch

    if not torch.cuda.is_available():
        raise UnavailableError("no CUDA device; run GPU campaigns on a machine that has one, or use --device cpu")
    return torch


class CudaMeter:
    """Time by CUDA events around replays of a graph that holds all runs."""

    name = "cuda_graph"

    def seconds(self, runs: Sequence[Callable[[], object]], repeats: int = 7) -> list[float]:
        """Seconds of one call, raw repeats; see `Meter`."""
        torch = require_cuda()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for run in runs:
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for run in runs:
                run()
        graph.replay()
        torch.cuda.synchronize()
        out = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            out.append(begin.elapsed_time(end) * 1e-3 / len(runs))
        return out

    def eager_seconds(self, run: Callable[[], object], repeats: int = 7, calls: int = 200) -> list[float]:
        """Seconds of one call launched eagerly, back to back."""
        torch = require_cuda()
        run()
        out = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(calls):
                run()
            end.record()
            torch.cuda.synchronize()
            out.append(begin.elapsed_time(end) * 1e-3 / calls)
        return out


class NvmlMeter:
    """Energy, clocks and throttling by NVML, of the board that torch computes on.

    Raises
    ------
    UnavailableError
        If nvidia-ml-py, the driver or the energy counter is missing, or the board cannot be told.
    """

    name = "nvml"

    def __init__(self) -> None:
        if find_spec("pynvml") is None:
            raise UnavailableError("nvidia-ml-py is not installed; pip install 'zeroskip[gpu]'")
        import pynvml

        self.nvml = pynvml
        try:
            pynvml.nvmlInit()
            self.handle = computing_board(pynvml)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        except pynvml.NVMLError as error:
            raise UnavailableError(f"NVML gives no energy here: {error}; time is measured all the same") from None

    def facts(self) -> dict[str, Any]:
        """GPU, driver, limits and what else uses it: provenance."""
        nvml, handle = self.nvml, self.handle
        limit_mw = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        clock_mhz = self._ask(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)
        busy = self._ask(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        return {
            "gpu": text_of(nvml.nvmlDeviceGetName(handle)),
            "driver": text_of(nvml.nvmlSystemGetDriverVersion()),
            "power_limit_w": None if limit_mw is None else limit_mw * 1e-3,
            "max_sm_clock_hz": None if clock_mhz is None else clock_mhz * 1e6,
            "processes": None if busy is None else len(busy),
        }

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what NVML says; None where this board, or a container, does not let it."""
        try:
            return call(*arguments)
        except self.nvml.NVMLError:
            return None

    def reading(self) -> Reading:
        """Read the device's state now."""
        nvml, handle = self.nvml, self.handle
        return Reading(
            nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 1e6,
            float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        )

    def powers(self) -> Powers:
        """Read the power now, by scope: the memory's own is what an HBM byte costs, told apart from the chip's."""
        nvml = self.nvml
        scopes = (nvml.NVML_POWER_SCOPE_GPU, nvml.NVML_POWER_SCOPE_MODULE, nvml.NVML_POWER_SCOPE_MEMORY)
        try:
            found = nvml.nvmlDeviceGetFieldValues(
                self.handle, [(nvml.NVML_FI_DEV_POWER_INSTANT, scope) for scope in scopes]
            )
        except nvml.NVMLError:
            return Powers(None, None, None)
        # a scope that the board does not measure is answered with an error of its own, or with nothing
        return Powers(*(v.value.uiVal * 1e-3 if v.nvmlReturn == 0 and v.value.uiVal else None for v in found))

    def _tick(self) -> tuple[float, float]:
        """Wait for the counter to move: (time, joules) at that moment."""
        before = self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        limit = time.monotonic() + TICK_TIMEOUT_S
        while time.monotonic() < limit:
            now = self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
            if now != before:
                return time.monotonic(), now * 1e-3
            time.sleep(0.001)
        raise UnavailableError(f"the energy counter did not move in {TICK_TIMEOUT_S:.0f} s; NVML gives no energy here")

    def _between_ticks(self, step: Callable[[], int], seconds: float) -> Window:
        """Run `step` between two ticks at least `seconds` apart."""
        begun, first = self._tick()
        calls = 0
        while time.monotonic() - begun < seconds:
            calls += step()
        busy = time.monotonic() - begun
        done, last = self._tick()
        return Window(last - first, busy, done - begun - busy, calls)

    def idle_watts(self, seconds: float = 2.0) -> float:
        """Power with a context alive and nothing running, right after work so that the clock is still at boost."""

        def wait() -> int:
            time.sleep(0.02)
            return 0

        window = self._between_ticks(wait, seconds)
        return window.joules / (window.busy_s + window.idle_s)

    def energy(self, run: Callable[[], object], *, batch: int = 20, loop_s: float = LOOP_S) -> Energy:
        """Joules of one call of `run`, idle power not taken off.

        Parameters
        ----------
        run : callable
            Queues the work once; it is looped for `loop_s` after `WARM_S`.
        batch : int
            Calls between two synchronisations.
        loop_s : float
            Length of the loop.

        Returns
        -------
        Energy
        """
        torch = require_cuda()
        seen: list[Powers] = []

        def step() -> int:
            for _ in range(batch):
                run()
            seen.append(self.powers())  # while the batch is still under way
            torch.cuda.synchronize()
            return batch

        begun = time.monotonic()
        while time.monotonic() - begun < WARM_S:
            step()
        seen.clear()
        window = self._between_ticks(step, loop_s)
        reading = self.reading()
        idle = self.idle_watts()
        time.sleep(COOL_S)
        joules = window.joules - idle * window.idle_s
        return Energy(joules / window.calls, window.busy_s / window.calls, idle, _mean_powers(seen), reading)


class ZeusMeter(NvmlMeter):
    """Energy by a window of Zeus's monitor instead of the counter's own ticks; clocks and power still by NVML.

    Raises
    ------
    UnavailableError
        If zeus, nvidia-ml-py, the driver or the energy counter is missing, or zeus watches another board than torch's.
    """

    name = "zeus"

    def __init__(self) -> None:
        if find_spec("zeus") is None:
            raise UnavailableError("zeus is not installed; pip install 'zeroskip[zeus]', or measure with --meter nvml")
        super().__init__()
        from zeus.device import get_gpus  # type: ignore[import-not-found]
        from zeus.monitor import ZeusMonitor  # type: ignore[import-not-found]

        # zeus has an order of its own, and indices are all that its monitor takes
        uuid = self.nvml.nvmlDeviceGetUUID(self.handle)
        watched = [getattr(gpu, "handle", None) for gpu in get_gpus().gpus]
        places = [i for i, one in enumerate(watched) if one is not None and self.nvml.nvmlDeviceGetUUID(one) == uuid]
        if len(places) != 1:
            raise UnavailableError(
                f"zeus does not list the board that torch computes on ({text_of(uuid)}); measure with --meter nvml"
            )
        self.monitor = ZeusMonitor(gpu_indices=places)

    def _between_ticks(self, step: Callable[[], int], seconds: float) -> Window:
        self.monitor.begin_window(self.name)
        begun, calls = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            calls += step()
        found = self.monitor.end_window(self.name)
        return Window(float(found.total_energy), float(found.time), 0.0, calls)


def _mean_powers(seen: Sequence[Powers]) -> Powers:
    means = []
    for scope in zip(*seen, strict=True):
        told = [watts for watts in scope if watts is not None]
        means.append(float(np.mean(told)) if told else None)
    return Powers(*means) if means else Powers(None, None, None)


class ReplayMeter:
    """Answers from stored measurements, where there is no device.

    Parameters
    ----------
    frame : DataFrame
        Rows of a bundle.
    """

    name = "replay"

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def lookup(self, **key: Any) -> pd.Series:
        """Return the one stored row with these columns.

        Raises
        ------
        InputError
            If a column is unknown, or none or several rows match.
        """
        found = self.frame
        for column, value in key.items():
            if column not in found:
                raise InputError(f"stored measurements have no column '{column}'")
            found = found[found[column] == value]
        if len(found) != 1:
            told = ", ".join(f"{name}={value}" for name, value in key.items())
            raise InputError(f"{len(found)} stored measurements match {told}; give columns that single one out")
        return found.iloc[0]


def known_meters() -> dict[str, Any]:
    """Meters by name: ours, and those of the entry-point group ``simkit.meters``."""
    found: dict[str, Any] = {meter.name: meter for meter in (CudaMeter, NvmlMeter, ZeusMeter, ReplayMeter)}
    for point in entry_points(group="simkit.meters"):
        found[point.name] = point.load()
    return found


def energy_meter(name: str) -> Any:
    """Make the meter that energy is read by.

    Raises
    ------
    InputError
        If there is none of that name, or it does not measure energy.
    UnavailableError
        If what it needs is missing here.
    """
    meters = {key: meter for key, meter in known_meters().items() if hasattr(meter, "energy")}
    if name not in meters:
        raise InputError(f"no energy meter '{name}'" + nearest(name, meters))
    return meters[name]()


def sane(raw: Sequence[float], reading: Reading | None = None, most: float = 0.2) -> str:
    """Say why a measurement should not be used, or nothing.

    Parameters
    ----------
    raw : sequence of float
        Repeats.
    reading : Reading, optional
        State of the device at the end.
    most : float
        Largest interquartile range over the median.

    Returns
    -------
    str
        Empty where the measurement may be used.
    """
    low, middle, high = np.quantile(raw, [0.25, 0.5, 0.75])
    if not middle > 0:
        return "no time"
    if (high - low) / middle > most:
        return f"repeats spread over {100 * (high - low) / middle:.0f} %"
    if reading is not None and reading.throttle & BAD_THROTTLE:
        return f"clock throttled (reasons 0x{reading.throttle:x})"
    return ""
