"""Tune and record the demo's model, and what packing masks on the GPU costs its forward pass."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnavailableError
from .campaigns import Point, Row
from .meters import require_cuda

MODEL, DATA, TUNING = "minilm-l6", "vader-movie", "relu-lora"
SEQUENCES, ROWS, LENGTH = 256, 64, 64
RING = 8
PASSES = 9


def record_points() -> list[Point]:
    """One tuning recorded end to end, then the GPU's packing hooks by batch."""
    return [{"op": "record", "tuning": TUNING}, *({"op": "gpu_hooks", "batch": batch} for batch in (8, 64))]


def measure_record(point: Point) -> Row:
    """Measure one point."""
    return _end_to_end(point["tuning"]) if point["op"] == "record" else _gpu_hooks(point["batch"])


def _end_to_end(tuning: str) -> Row:
    import traces

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        tuned = Path(folder) / "tuned"
        traces.tune(
            model=MODEL, data=DATA, tuning=tuning, out=tuned, limit=SEQUENCES, test_limit=SEQUENCES, progress=False
        )
        tuned_s = time.perf_counter() - begun
        begun = time.perf_counter()
        out = Path(folder) / "trace.zarr"
        trace = traces.record(model=MODEL, adapter=tuned, data=DATA, limit=SEQUENCES, out=out, progress=False)
        seconds = time.perf_counter() - begun
        spent: dict[str, Any] = trace.attrs.get("recorder", {})
        return {
            "seconds": seconds,
            "tune_seconds": tuned_s,
            "overhead": spent.get("overhead"),
            "tokens": trace.n_tokens,
        }


class _Recorder:
    """Packs each down-projection's input on the GPU and copies the words out on a side stream."""

    def __init__(self, torch: Any) -> None:
        from . import kernels

        self.torch, self.kernels = torch, kernels
        self.side = torch.cuda.Stream()
        self.ring: list[Any] = []
        self.turn = 0

    def hook(self, module: Any, inputs: tuple[Any, ...]) -> None:
        torch = self.torch
        flat = inputs[0].detach().reshape(-1)
        words = torch.empty(-(-flat.numel() // 32), device="cuda", dtype=torch.int32)
        self.kernels.pack_words[(-(-len(words) // 64),)](flat, words, flat.numel(), 0.0, block=64)
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self._slot(len(words)).copy_(words, non_blocking=True)
            words.record_stream(self.side)

    def _slot(self, size: int) -> Any:
        if len(self.ring) < RING:
            self.ring.append(self.torch.empty(size, dtype=self.torch.int32, pin_memory=True))
        self.turn = (self.turn + 1) % len(self.ring)
        return self.ring[self.turn][:size]


def _gpu_hooks(batch: int) -> Row:
    """Alternate forward passes with and without the hooks; medians."""
    torch = require_cuda()
    from traces import load_model
    from traces.sites import find_sites

    model = load_model(MODEL).to("cuda", torch.bfloat16).eval()
    sites = find_sites(model)
    if not sites:
        raise UnavailableError(f"model '{MODEL}' has no MLP site to record")
    tokens = torch.randint(1000, 20000, (batch, LENGTH), device="cuda")
    recorder, modules = _Recorder(torch), dict(model.named_modules())
    times: dict[bool, list[float]] = {False: [], True: []}
    with torch.no_grad():
        for turn in range(2 * PASSES + 2):
            hooked = bool(turn % 2)
            handles = [modules[s.module].register_forward_pre_hook(recorder.hook) for s in sites] if hooked else []
            torch.cuda.synchronize()
            begun = time.perf_counter()
            model(input_ids=tokens)
            torch.cuda.synchronize()
            if turn >= 2:
                times[hooked].append(time.perf_counter() - begun)
            for handle in handles:
                handle.remove()
    plain, with_hooks = float(np.median(times[False])), float(np.median(times[True]))
    return {
        "seconds": with_hooks,
        "plain_seconds": plain,
        "overhead": with_hooks / plain - 1.0,
        "raw_seconds": times[True],
    }
