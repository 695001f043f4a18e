"""Tune and record the demo's model, and what recording adds to its forward passes, by the recorder that users run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .points import Point, Row

MODEL, DATA, TUNING = "minilm-l6", "vader-movie", "relu-lora"
SEQUENCES, LENGTH = 256, 64
BATCHES = (8, 64)
TURNS = 3


def record_points() -> list[Point]:
    """What recording adds, by batch; then one tuning recorded end to end."""
    overheads: list[Point] = [{"op": "overhead", "batch": batch} for batch in BATCHES]
    return [*overheads, {"op": "record", "tuning": TUNING}]


def measure_record(point: Point, device: str) -> Row:
    """Measure one point on ``cpu`` or ``cuda``."""
    return _end_to_end(point["tuning"], device) if point["op"] == "record" else _overhead(point["batch"], device)


def _end_to_end(tuning: str, device: str) -> Row:
    import traces

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        tuned = Path(folder) / "tuned"
        traces.tune(
            model=MODEL, data=DATA, tuning=tuning, out=tuned, limit=SEQUENCES, test_limit=SEQUENCES, progress=False
        )
        tuned_s = time.perf_counter() - begun
        begun = time.perf_counter()
        trace = _recorded(Path(folder) / "trace.zarr", device, adapter=tuned)
        return {
            "seconds": time.perf_counter() - begun,
            "tune_seconds": tuned_s,
            "overhead": trace.attrs["recorder"]["overhead"],
            "tokens": trace.n_tokens,
            "hash": trace.hash,
        }


def _recorded(out: Path, device: str, **options: Any) -> Any:
    import traces

    given: dict[str, Any] = {"model": MODEL, "data": DATA, "limit": SEQUENCES, "max_length": LENGTH}
    return traces.record(**(given | options), out=out, device=device, progress=False)


class _Spent(NamedTuple):
    """Seconds by the clock, and of all threads by the processor's."""

    wall: float
    process: float


def _overhead(batch: int, device: str) -> Row:
    """Alternate plain forward passes with recordings of the same batches: medians, and what the recorder says."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    plain = _plain_passes(batch, device, dtype)
    plain()  # the first pass of a process pays for what later ones find ready
    without: list[_Spent] = []
    facts: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            without.append(plain())
            trace = _recorded(Path(folder) / f"{turn}.zarr", device, batch_size=batch, dtype=dtype)
            facts.append(trace.attrs["recorder"])
        tokens = trace.n_tokens
    recorded = [_Spent(fact["forward_seconds"], fact["process_seconds"]) for fact in facts]
    before, after = (_Spent(*np.median(spent, axis=0).tolist()) for spent in (without, recorded))
    told = {name: float(np.median([fact[name] for fact in facts])) for name in ("overhead", "overhead_one_core")}
    return {
        "seconds": after.wall,
        "plain_seconds": before.wall,
        **told,
        "measured_overhead": after.wall / before.wall - 1.0,
        "measured_overhead_process": after.process / before.process - 1.0,
        "dtype": dtype,
        "tokens": tokens,
        "raw_seconds": [spent.wall for spent in recorded],
        "raw_plain_seconds": [spent.wall for spent in without],
    }


def _plain_passes(batch: int, device: str, dtype: str) -> Callable[[], _Spent]:
    """Return what runs the batches of a recording without recording them, and says how long that took."""
    import torch

    from traces import load_data, load_model
    from traces.data.batches import sorted_order
    from traces.data.inputs import prepare
    from traces.models.load import default_task

    task = default_task(MODEL)
    model = load_model(MODEL, task).to(device, getattr(torch, dtype)).eval()
    inputs = prepare(MODEL, task, load_data(DATA, task="features").test.head(SEQUENCES), LENGTH)
    order = sorted_order(inputs.lengths, batch)

    def run() -> _Spent:
        wall, process = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for rows in order:
                model(**inputs.batch(rows).to(device).inputs)
        if device != "cpu":
            torch.cuda.synchronize()
        return _Spent(time.perf_counter() - wall, time.process_time() - process)

    return run
