"""Forward hooks that pack activations as they pass."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..models.routing import spread_rows
from ..models.sites import MLPSite
from .device import Device
from .pack_cpu import FORMATS, pack_cpu
from .pack_gpu import pack_device
from .pinned_ring import Arrays, Ring

INT8 = "int8"
HISTOGRAM_BINS = 64  # powers of two from 2^-48 to 2^15 of |a|; exact zeros are not in any
VALUES = ("bf16", "int8")
BAD = "?"  # key of the counts of what is not finite, beside the arrays in one copy


class Packet(NamedTuple):
    """What the sites of one forward pass gave, perhaps still on its way to the host.

    Parameters
    ----------
    size_bytes : int
        Of the arrays.
    receive : callable
        Waits, and returns the arrays by key as `Writer.append` takes them, and by site how many elements were not
        finite. To be called once, on any thread.
    """

    size_bytes: int
    receive: Callable[[], tuple[Arrays, dict[str, int]]]


class SiteTap:
    """Packs each site's input, and for gated MLPs the activation's output, of every forward pass.

    Parameters
    ----------
    model : torch.nn.Module
        What runs.
    sites : sequence of MLPSite
        Where to look; see `gate_sites` for the activations' outputs.
    variants : sequence of str
        Further masks beside that of exact non-zeros: ``"0.01"`` for ``|a| > 0.01``, ``"int8"`` for what is not zero
        after symmetric quantisation of each token to 8 bits.
    histogram : bool
        Count magnitudes by powers of two.
    values : {"", "bf16", "int8"}
        Keep the values too; INT8 with one step for each token, ``max |a| / 127``.
    device : Device, optional
        Where the model runs, if not on the CPU: packing then happens there and nothing waits for it.
    slots : int
        Passes that may be on their way from the device at once.

    Attributes
    ----------
    seconds : float
        What the hooks and `take` took of the thread that runs the model.
    device_seconds : float
        What they took of the device, by its own clock, for the packets received so far.
    """

    def __init__(
        self,
        model: Any,
        sites: Sequence[MLPSite],
        variants: Sequence[str] = (),
        histogram: bool = False,
        values: str = "",
        device: Device | None = None,
        slots: int = 10,
    ) -> None:
        import torch

        self.seconds = self.device_seconds = 0.0
        self._histograms: dict[str, Any] = {site.name: 0 for site in sites if histogram}
        self._variants, self._values = list(variants), values
        self._device = device
        self._ring = Ring(device, slots) if device is not None else None
        self._places = {site.name: place for place, site in enumerate(sites)}
        self._clear()
        self._calls: Counter[str] = Counter()
        self._names = {(site.module, site.call): site.name for site in sites if not site.experts}
        self._handles = []
        self._model = model
        for kind in {p.dtype for p in model.parameters()} if device is None else ():  # compile before clocks run
            self._pack(torch.zeros((1, 1), dtype=kind), 0.0)
        for module in dict.fromkeys(site.module for site in sites if not site.experts):  # experts note by themselves
            owner = model.get_submodule(module)
            if any(site.module == module and site.output for site in sites):
                self._handles.append(owner.register_forward_hook(self._after(module)))
            else:
                self._handles.append(owner.register_forward_pre_hook(self._before(module)))

    def _clear(self) -> None:
        self._arrays: dict[str, Any] = {}
        self._bad: dict[str, int] = {}
        self._counters: Any = None
        self._stamps: list[tuple[Any, Any]] = []

    def _before(self, module: str) -> Any:
        return lambda _module, inputs: self._called(module, inputs[0])

    def _after(self, module: str) -> Any:
        return lambda _module, _inputs, output: self._called(module, output)

    def _called(self, module: str, value: Any) -> None:
        name = self._names[module, self._calls[module]]
        self._calls[module] += 1
        rows = self._rows(module)
        if rows is None:
            self.note(name, value)
            return
        whole, choice = spread_rows(rows, value)
        self.note(name, whole)
        self.choose(name, choice)

    def _rows(self, module: str) -> Any:
        """Return which tokens of the pass took a block that not all take."""
        routing = getattr(self._model.get_submodule(module), "routing", None)
        return None if routing is None else routing.rows

    def note(self, name: str, value: Any, many: int = 1) -> None:
        """Pack one site's activations ``(..., K)``; `many` consecutive rows stand side by side in the trace."""
        began = time.perf_counter()
        start = self._device.stamp() if self._device is not None else None
        flat = value.detach().reshape(-1, value.shape[-1])
        found = {name: self._pack(flat, 0.0, name)}
        for variant in self._variants:
            threshold = 0.0 if variant == INT8 else float(variant)
            bits = above(flat, variant) if variant == INT8 else flat
            found[f"{name}@{variant}"] = self._pack(bits, threshold)
        if self._values:
            kept, scale = quantised(flat) if self._values == INT8 else (bfloat16_bits(flat), None)
            found |= {f"{name}/values": kept} | ({} if scale is None else {f"{name}/scale": scale})
        for key, rows in found.items():
            self._arrays[key] = self._host(rows).reshape(len(rows) // many, -1)
        if name in self._histograms:
            self._histograms[name] = self._histograms[name] + magnitudes(flat)
        if start is not None and self._device is not None:
            self._stamps.append((start, self._device.stamp()))
        self.seconds += time.perf_counter() - began

    def choose(self, name: str, experts: Any) -> None:
        """Keep the experts ``(rows, chosen)`` that each token goes through."""
        import torch

        self._arrays[f"{name}/choice"] = self._host(experts.detach().to(torch.int16))

    def _pack(self, values: Any, threshold: float, site: str = "") -> Any:
        """Pack values; of a site's own, also count what is not finite."""
        import torch

        if self._ring is not None:
            if self._counters is None:  # one for each site, and one more that nobody reads
                self._counters = torch.zeros(len(self._places) + 1, dtype=torch.int32, device=values.device)
            place = self._places.get(site, len(self._places))
            return pack_device(values, threshold, self._counters[place : place + 1])
        plain = str(values.dtype).removeprefix("torch.") in FORMATS
        words, bad = pack_cpu(values if plain else values != 0, threshold)
        if site:
            self._bad[site] = bad if plain else int((~torch.isfinite(values)).sum())
        return words

    def _host(self, rows: Any) -> Any:
        return rows if self._ring is not None or isinstance(rows, np.ndarray) else rows.cpu().numpy()

    def take(self) -> Packet:
        """Return what the last forward pass gave, and forget it."""
        arrays, bad, counters, stamps = self._arrays, self._bad, self._counters, self._stamps
        self._clear()
        self._calls.clear()
        if self._ring is None or self._device is None or counters is None:
            size = sum(rows.nbytes for rows in arrays.values())
            return Packet(size, lambda: (_typed(arrays), {name: count for name, count in bad.items() if count}))
        began, start = time.perf_counter(), self._device.stamp()
        size = sum(rows.numel() * rows.element_size() for rows in arrays.values())
        receive = self._ring.send(arrays | {BAD: counters})
        stamps.append((start, self._device.stamp()))
        self.seconds += time.perf_counter() - began

        def received() -> tuple[Arrays, dict[str, int]]:
            found = receive()
            self.device_seconds += sum(start.elapsed_time(end) for start, end in stamps) / 1e3
            counts = found.pop(BAD)
            return _typed(found), {name: int(counts[place]) for name, place in self._places.items() if counts[place]}

        return Packet(size, received)

    def start_over(self) -> None:
        """Forget all that was seen and spent, as after a pass that only warmed up."""
        self.take().receive()
        self._histograms = dict.fromkeys(self._histograms, 0)
        self.seconds = self.device_seconds = 0.0
        if self._ring is not None:
            self._ring.awaited = 0.0

    @property
    def awaited(self) -> float:
        """Seconds that receivers waited for the device."""
        return self._ring.awaited if self._ring is not None else 0.0

    def histograms(self) -> dict[str, list[int]] | None:
        """Return how many magnitudes fell into each bin by site, None where that was not asked for."""
        found = {name: counts.tolist() for name, counts in self._histograms.items() if not isinstance(counts, int)}
        return found or None

    def go_on(self, histograms: dict[str, list[int]]) -> None:
        """Add what was counted before a stop."""
        import torch

        device = next(self._model.parameters()).device
        for name, counts in histograms.items():
            self._histograms[name] = self._histograms[name] + torch.tensor(counts, device=device)

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def _typed(arrays: Arrays) -> Arrays:
    """Masks as uint64 words and bfloat16 as uint16, which torch can hold but not compute with."""
    found = {}
    for key, rows in arrays.items():
        part = key.partition("/")[2]
        kind: Any = np.uint64 if not part else np.uint16 if rows.dtype == np.int16 and part == "values" else rows.dtype
        found[key] = np.ascontiguousarray(rows).view(kind)
    return found


def above(values: Any, variant: str) -> Any:
    """Return which entries of a 2-D tensor a variant counts as non-zero.

    Notes
    -----
    ``int8``: q = round(127 a / max|a|) of each row, rounding half to even; non-zero where |a| > max|a| / 254.
    """
    if variant == INT8:
        magnitude = values.abs()
        return magnitude * 254 > magnitude.amax(dim=1, keepdim=True)
    return values.abs() > float(variant)


def magnitudes(values: Any) -> Any:
    """Count a 2-D tensor's non-zeros by powers of two of their magnitude: ``int64[HISTOGRAM_BINS]`` on its device."""
    import torch

    exponent = torch.frexp(values.float()).exponent.clamp(-47, 16) + 47
    counts = torch.zeros(HISTOGRAM_BINS, dtype=torch.int64, device=values.device)
    return counts.index_add_(0, exponent.reshape(-1).long(), (values != 0).reshape(-1).long())


def bfloat16_bits(values: Any) -> Any:
    """Return the bits of a 2-D tensor rounded to bfloat16, as int16; a copy, for activations are overwritten."""
    import torch

    return values.to(torch.bfloat16, copy=True).view(torch.int16)


def quantised(values: Any) -> tuple[Any, Any]:
    """Return ``round(a / step)`` as int8 and ``step = max |a| / 127`` of each row as float32 (M, 1)."""
    import torch

    step = values.abs().amax(dim=1, keepdim=True).float() / 127
    safe = torch.where(step > 0, step, torch.ones_like(step))
    return torch.round(values.float() / safe).clamp(-127, 127).to(torch.int8), step


def parse_variants(thresholds: Sequence[float], int8: bool) -> list[str]:
    """Name the further masks.

    Raises
    ------
    InputError
        If a threshold is not a positive number.
    """
    for value in thresholds:
        if not 0 < value < float("inf"):
            raise InputError(f"threshold {value}: must be a positive number (exact zeros are always recorded)")
    return [*(f"{value:g}" for value in thresholds), *([INT8] if int8 else [])]
