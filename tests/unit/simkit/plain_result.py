"""A result with round numbers, so that a figure's bars can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd

from simkit.results.result import COLUMNS, Result

ARCHS = {"systolic_32x32": 1.0, "cnvlutin": 4.0, "eie": 20.0}
TUNINGS = {"lora": 1.0, "relu": 0.2}
ACCURACY = {"lora": 0.85, "relu": 0.80}
TOKENS = 100


def plain_result() -> Result:
    """Two tunings on three archs, two layers of down; a run's energy is 100 nJ x its density / the arch's gain."""
    rows: list[dict[str, Any]] = []
    runs: dict[str, Any] = {}
    for tuning, density in TUNINGS.items():
        for arch, gain in ARCHS.items():
            run = f"{tuning}-{arch}"
            speed = 1.0 if arch == "systolic_32x32" else gain / density / 4
            for layer in (0, 1):
                rows += _layer(run, tuning, arch, layer, density, speed, gain)
            runs[run] = _meta(tuning, arch, density)
    frame = pd.DataFrame(rows)
    for name in COLUMNS:
        if name not in frame:
            frame[name] = {"kind": "gemm", "batch": TOKENS, "repeat": 1}.get(name, 0)
    return Result(frame[COLUMNS], {"runs": runs})


def _layer(
    run: str, tuning: str, arch: str, layer: int, density: float, speed: float, gain: float
) -> list[dict[str, Any]]:
    dense = 1_000_000
    own = {
        "run": run,
        "trace": tuning,
        "tuning": tuning,
        "arch": arch,
        "layer": layer,
        "op": "down",
        "m": TOKENS,
        "k": 256,
        "n": 64,
        "macs": TOKENS * 256 * 64,
        "effectual_macs": round(TOKENS * 256 * 64 * density),
        "cycles": round(dense / speed * 0.75),
        "dense_cycles": round(dense * 0.75),
        "stall_cycles": round(dense / speed * 0.25),
        "dense_stall_cycles": round(dense * 0.25),
        "latency_s": 1e-3 / speed,
        "dense_latency_s": 1e-3,
        "dram_bytes": 4096,
    }
    total = 50_000.0 * TOKENS * density / gain
    shares = {"mac": 0.4, "weight_buffer": 0.3, "dram": 0.2, "static": 0.1}
    return [
        own
        | {
            "component": name,
            "action": "do",
            "count": 1,
            "energy_pj": total * share,
            "energy_low_pj": total * share / 2,
            "energy_high_pj": total * share * 2,
        }
        for name, share in shares.items()
    ]


def _meta(tuning: str, arch: str, density: float) -> dict[str, Any]:
    import hwmodels

    known = hwmodels.load_arch(arch)
    measured = {"accuracy": ACCURACY[tuning], "accuracy_se": 0.01, "train_seconds": 60.0 / density}
    return {
        "trace": {
            "name": tuning,
            "hash": tuning,
            "tokens": TOKENS,
            "tuning": {"name": tuning, "method": "density"},
            "measurements": measured,
        },
        "arch": {"name": arch, "hash": known.hash, "kernel": known.kernel, "source": known.source},
        "table": {"name": "default_45nm", "hash": "0"},
        "weights": "dense",
        "kernels": "0",
        "stalls": {"barrier": 200, "dram": 10},
        "slots": {"down": {"busy": 600, "barrier": 200}},
        "unit_busy": {"down.0": [400_000, 200_000], "down.1": [100_000, 0]} if arch == "cnvlutin" else {},
        "environment": {"versions": {"zeroskip": "0"}, "python": "3", "platform": "p", "cpu": "c", "git": {}},
    }
