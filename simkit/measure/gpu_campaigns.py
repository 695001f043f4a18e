"""Measurement of one campaign point on a GPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwmodels import load_arch

from ..errors import InputError, UnavailableError
from .meters import CudaMeter, NvmlMeter, Reading, energy_meter, require_cuda, sane
from .points import POINTS, Campaign, Point, Row, gpu_devices, sparse_points
from .variants import Problem, build, check, problem

COLD_FACTOR = 3  # operands in rotation take this many times the L2
MOST_SETS = 64
REPEATS = 7
SUSTAINED_S = 2.0
GATHER_BYTES = 256 << 20


def gpu_here(wanted: str | None) -> str:
    """Name the arch of the GPU at hand.

    Raises
    ------
    UnavailableError
        If there is no CUDA device.
    InputError
        If it is not the wanted one, or none that has an arch.
    """
    torch = require_cuda()
    current = torch.cuda.current_device()
    found = torch.cuda.get_device_name(current)
    words = re.findall(r"[a-z0-9]+", found.lower())
    here = next(
        (n for n in gpu_devices() if all(w in words for w in n.removesuffix("_sxm").removesuffix("_64").split("_"))),
        None,
    )
    if here is None:
        raise InputError(f"GPU '{found}' has no arch; add hwmodels/archs/<name>.yaml for it first")
    there = torch.cuda.get_device_properties(current).multi_processor_count
    known = int(load_arch(here).params["sms"].value)
    if there != known:
        raise InputError(
            f"GPU '{found}' has {there} SMs, {here} has {known}: a slice of one, or another model; measure on a whole "
            f"{here}, or add hwmodels/archs/<name>.yaml for this one"
        )
    if wanted is not None and wanted != here:
        raise InputError(f"the GPU here is {here} ('{found}'), not {wanted}; leave --device out or name {here}")
    return here


def gpu_campaign(name: str, device: str, trace: str | None = None, meter: str = "nvml") -> Campaign:
    """Points of a campaign and how to measure them on the GPU at hand."""
    torch = require_cuda()
    bench = GpuBench(float(load_arch(device).memory.activation_buffer.value), trace, meter)
    facts = {"torch": torch.__version__, "cuda": torch.version.cuda, **bench.facts()}
    if name == "record":
        from .record_campaign import measure_record, record_points

        return Campaign(record_points(), lambda point: measure_record(point, "cuda"), facts)
    points = bench.sparse_points() if name == "sparse" else POINTS[name]()
    return Campaign(points, bench.measure, facts, bench.alive)


class GpuBench:
    """Measures points on torch's current CUDA device.

    Parameters
    ----------
    l2_bytes : float
        L2 size, for cold operands.
    trace : str, optional
        Trace whose masks are the recorded ones.
    meter : str
        What reads energy: ``nvml``, ``zeus``, or one of the entry-point group ``simkit.meters``.
    """

    def __init__(self, l2_bytes: float, trace: str | None = None, meter: str = "nvml") -> None:
        self.torch = require_cuda()
        self.torch.zeros(1, device="cuda")  # this process is then among those that use the device
        self.l2_bytes = l2_bytes
        self._masks = _recorded_masks(trace) if trace is not None else {}
        self.clock = CudaMeter()
        self.meter = meter
        try:
            self.nvml: NvmlMeter | None = energy_meter(meter)
            self.no_energy = ""
        except UnavailableError as error:
            if meter != "nvml":
                raise
            self.nvml, self.no_energy = None, str(error)
        self.shared = 0 if self.nvml is None else max(0, (self.nvml.facts()["processes"] or 0) - 1)

    def facts(self) -> dict[str, Any]:
        """Provenance of the device."""
        if self.nvml is None:
            return {"gpu": self.torch.cuda.get_device_name(), "nvml": f"absent: {self.no_energy}"}
        return {**self.nvml.facts(), "energy_meter": self.meter}

    def sparse_points(self) -> list[Point]:
        """Return the points of ``sparse``; on recorded masks those of the trace's widths."""
        widths = {len(mask[0]) for mask in self._masks.values()}
        points = sparse_points(("bernoulli", "recorded") if widths else ("bernoulli",))
        return [point for point in points if point["mask"] == "bernoulli" or point["k"] in widths]

    def alive(self) -> None:
        """Raise where an error has ended the device's context, and nothing after it can be measured.

        Raises
        ------
        UnavailableError
            Naming that error.
        """
        try:
            self.torch.cuda.synchronize()
            self.torch.rand(1, device="cuda").item()
        except RuntimeError as error:
            raise UnavailableError(
                f"the GPU no longer answers this process ({str(error).splitlines()[0]}); the point is marked, run the "
                "same command again for the others"
            ) from error

    def measure(self, point: Point) -> Row:
        """Measure one point: seconds (median), raw repeats, state, and the flaw if it has one."""
        if point.get("energy"):
            return self._energy(point)
        if point["op"] == "launch":
            return self._launch(point)
        if point["op"] == "sustained":
            return self._sustained(point)
        runs, facts = self._runs(point)
        return self._timed(self.clock.seconds(runs, REPEATS), facts)

    def _timed(self, raw: list[float], facts: Row) -> Row:
        reading = self.nvml.reading() if self.nvml else None
        return {
            "seconds": float(np.median(raw)),
            "raw_seconds": raw,
            "flaw": f"GPU shared with {self.shared} other processes" if self.shared else sane(raw, reading),
            **_state(reading),
            **facts,
        }

    def _runs(self, point: Point) -> tuple[list[Callable[[], object]], Row]:
        if point["op"] == "copy":
            return self._copy(point["bytes"]), {"moved_bytes": 2 * point["bytes"]}
        if point["op"] == "gather":
            return self._rows(point["row_bytes"], point["density"])
        if point["op"] == "gemm":
            point = {**point, "kernel": "dense", "density": 1.0, "mask": "bernoulli", "heat": "cold"}
        return self._kernel(point)

    def _kernel(self, point: Point) -> tuple[list[Callable[[], object]], Row]:
        m, k, n = point["m"], point["k"], point["n"]
        bytes_each = 2 * (m * k + k * n + m * n)
        sets = min(MOST_SETS, 1 + int(COLD_FACTOR * self.l2_bytes / bytes_each)) if point["heat"] == "cold" else 1
        problems = [self._problem(point, seed) for seed in range(sets)]
        variants = [build(point["kernel"], p) for p in problems]
        error = max(check(point["kernel"], variant) for variant in variants[:2])
        first = problems[0].mask
        union = first.any(dim=0)
        starts = union & ~self.torch.roll(union, 1)
        facts = {
            "sets": sets,
            "error": error,
            "rows": int(union.sum()),
            "runs": max(1, int(starts.sum())),
            "measured_density": float(first.float().mean()),
        }
        return [variant.run for variant in variants], facts

    def _problem(self, point: Point, seed: int) -> Problem:
        mask = self._recorded(point, seed) if point["mask"] == "recorded" else None
        return problem(point["m"], point["k"], point["n"], point["density"], device="cuda", seed=seed, mask=mask)

    def _recorded(self, point: Point, seed: int) -> Any:
        """Rows of the trace's own masks, of the site with this K whose density is nearest."""
        wide = [mask for mask in self._masks.values() if len(mask[0]) == point["k"]]
        bits = min(wide, key=lambda mask: abs(float(mask.mean()) - point["density"]))
        rows = (np.arange(point["m"]) + seed * point["m"]) % len(bits)
        return self.torch.from_numpy(np.ascontiguousarray(bits[rows]))

    def _copy(self, size: int) -> list[Callable[[], object]]:
        source = self.torch.randint(0, 255, (size,), device="cuda", dtype=self.torch.uint8)
        target = self.torch.empty_like(source)
        return [lambda: target.copy_(source)]

    def _rows(self, row_bytes: int, density: float) -> tuple[list[Callable[[], object]], Row]:
        rows, width = GATHER_BYTES // row_bytes, row_bytes // 2
        table = self.torch.randn((rows, width), device="cuda").to(self.torch.bfloat16)
        index = (self.torch.rand(rows, device="cuda") < density).nonzero().squeeze(1)
        out = self.torch.empty((len(index), width), device="cuda", dtype=self.torch.bfloat16)
        breaks = int((index[1:] - index[:-1] > 1).sum()) + 1
        moved = 2 * len(index) * row_bytes
        return [lambda: self.torch.index_select(table, 0, index, out=out)], {
            "rows": len(index),
            "runs": breaks,
            "moved_bytes": moved,
        }

    def _launch(self, point: Point) -> Row:
        one = self.torch.ones(1, device="cuda")
        if point["how"] == "eager":
            return self._timed(self.clock.eager_seconds(lambda: one.add_(0.0), REPEATS), {})
        return self._timed(self.clock.seconds([lambda: one.add_(0.0)] * 100, REPEATS), {})

    def _sustained(self, point: Point) -> Row:
        side = 8192
        a, b = (self.torch.randn((side, side), device="cuda").to(self.torch.bfloat16) for _ in range(2))
        if point["data"] == "zeros":
            a.zero_()
            b.zero_()
        out = self.torch.empty_like(a)
        calls = max(8, int(SUSTAINED_S / 1.5e-3 / REPEATS))
        runs: list[Callable[[], object]] = [lambda: self.torch.mm(a, b, out=out)] * calls
        return self._timed(self.clock.seconds(runs, REPEATS), {"m": side, "n": side, "k": side})

    def _energy(self, point: Point) -> Row:
        if self.nvml is None:
            raise UnavailableError(f"no energy is measured, only time: {self.no_energy}")
        runs, facts = self._runs(point)
        graph = self.torch.cuda.CUDAGraph()
        for run in runs:
            run()
        self.torch.cuda.synchronize()
        with self.torch.cuda.graph(graph):
            for run in runs:
                run()
        found = self.nvml.energy(graph.replay)
        count = len(runs)
        return {
            "seconds": found.seconds / count,
            "joules": found.joules / count,
            "idle_w": found.idle_w,
            **found.powers._asdict(),
            "flaw": sane([found.seconds], found.reading),
            **_state(found.reading),
            **facts,
        }


def _recorded_masks(trace: str) -> dict[str, NDArray[np.bool_]]:
    """Return every site's mask."""
    from traces import open_trace

    return {name: site.mask().to_bool() for name, site in open_trace(trace).sites.items()}


def _state(reading: Reading | None) -> Row:
    return {} if reading is None else dict(reading._asdict())
