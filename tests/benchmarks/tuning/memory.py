"""Estimated against measured peak memory of training steps of minilm-l6; writes memory.json beside this file.

Run: ``python tests/benchmarks/tuning/memory.py``.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit" / "traces"))

import torch
from measured_memory import measured_peak

from traces.files import write_json
from traces.provenance import provenance
from traces.training_step.memory import step_memory
from traces.training_step.ops import PROBES, example, loss_of
from traces.tuning.registry import load_tuning
from traces.tuning.result import build_model

MODEL, TASK = "minilm-l6", "classification"
CASES = [("head", 32, 64), ("lora", 8, 32), ("lora", 32, 64), ("full", 8, 32), ("full", 32, 64)]


def main() -> None:
    """Measure every case."""
    rows = []
    for name, batch, length in CASES:
        net = build_model(MODEL, TASK, 2, load_tuning(name), {}).net.train()

        def loss(b: int, s: int, net: torch.nn.Module = net) -> torch.Tensor:
            return loss_of(net, example(net, TASK, b, s), TASK)

        found = step_memory(net, loss, PROBES, batch, length)
        measured = measured_peak(net, partial(loss, batch, length))
        rows.append({"tuning": name, "batch": batch, "length": length, **found, "measured_peak": measured})
        print(name, batch, length, f"{found['peak'] / measured:.4f}", flush=True)
    write_json(Path(__file__).with_suffix(".json"), {"model": MODEL, "rows": rows, "provenance": provenance(0)})


if __name__ == "__main__":
    main()
