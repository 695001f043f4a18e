"""The points of each campaign, and what a campaign is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from hwmodels import list_archs, load_arch

Point = dict[str, Any]


Row = dict[str, Any]


BUDGET_S = {"smoke": 60.0, "calibrate": 180.0, "sparse": 480.0, "energy": 480.0, "record": 300.0}


CAMPAIGNS = tuple(BUDGET_S)


CPU_CAMPAIGNS = ("smoke", "calibrate", "energy", "record")


DENSITIES = (1.0, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


BATCHES = (1, 2, 4, 8, 16, 64, 256, 1024)


MLP_SHAPES = ((1536, 384), (3072, 768), (11008, 4096), (14336, 4096))  # (d_ff, d_model)


COPY_BYTES = tuple(1 << power for power in range(20, 33, 2))


ROW_BYTES = (512, 1024, 2048, 4096, 8192, 16384, 32768)


GEMMS = 260


@dataclass(frozen=True)
class Campaign:
    """Points of a campaign on a device, and how one is measured."""

    points: list[Point]
    measure: Callable[[Point], Row]
    facts: dict[str, Any]
    alive: Callable[[], None] = lambda: None  # raises where nothing can be measured any more


@lru_cache(maxsize=1)
def gpu_devices() -> list[str]:
    """Archs that are GPUs."""
    return [name for name in list_archs() if load_arch(name).kernel == "gpu"]


def gemm_points(seed: int = 0, count: int = GEMMS) -> list[Point]:
    """Draw GEMMs stratified over M, N and K, each at most about 2e13 FLOP."""
    rng = np.random.default_rng(seed)
    out: list[Point] = []
    for i in range(count):
        m = int(np.exp(rng.uniform(*np.log([(1, 16), (16, 128), (128, 1024), (1024, 8192)][i % 4]))))
        n, k = (int(np.exp(rng.uniform(np.log(128), np.log(16384)))) // 128 * 128 or 128 for _ in range(2))
        out.append({"op": "gemm", "m": max(1, m), "n": n, "k": k})
    return out


def calibrate_points() -> list[Point]:
    """Copies, launches, gathers, sustained GEMMs, GEMMs."""
    points: list[Point] = [{"op": "copy", "bytes": size} for size in COPY_BYTES]
    points += [{"op": "launch", "how": how} for how in ("graph", "eager")]
    points += [{"op": "gather", "row_bytes": b, "density": d} for b, d in product(ROW_BYTES, (1.0, 0.5, 0.2, 0.05))]
    points += [{"op": "sustained", "data": data} for data in ("random", "zeros")]
    return points + gemm_points()


def sparse_points(masks: tuple[str, ...] = ("bernoulli",)) -> list[Point]:
    """Every kernel where it makes sense, over density, batch and shape, cold and warm."""
    out: list[Point] = []
    for (d_ff, d_model), m, density, mask in product(MLP_SHAPES, BATCHES, DENSITIES, masks):
        kernels = ["dense_shrunk", "csr"] if density < 1 else ["dense"]
        kernels += ["gather_gemv", "gate_up_gather"] if m <= 16 else ["tile_skip_gemm"]
        kernels += ["mask_gemv"] if m == 1 else []
        kernels += ["bsr"] if m >= 64 and density < 1 else []
        kernels += ["semi_structured"] if density == 0.5 else []
        for kernel, heat in product(kernels, ("cold", "warm")):
            if kernel in ("csr", "bsr", "semi_structured") and (heat == "warm" or d_ff != 11008):
                continue
            point = {"op": "sparse", "kernel": kernel, "m": m, "k": d_ff, "n": d_model, "density": density}
            out.append({**point, "mask": mask, "heat": heat})
    return out


def energy_points(seed: int = 0) -> list[Point]:
    """Work looped for seconds, three repeats in shuffled order."""
    once: list[Point] = [{"op": "copy", "bytes": 1 << 30}]
    once += [
        {"op": "gemm", "m": m, "n": n, "k": k}
        for m, n, k in ((8192, 8192, 8192), (512, 4096, 11008), (16, 4096, 11008))
    ]
    once += [
        {
            "op": "sparse",
            "kernel": kernel,
            "m": 1,
            "k": 11008,
            "n": 4096,
            "density": density,
            "mask": "bernoulli",
            "heat": "cold",
        }
        for kernel, density in (("dense", 1.0), ("gather_gemv", 0.5), ("gather_gemv", 0.1))
    ]
    shuffled = [{**point, "energy": True, "repeat": repeat} for repeat in range(3) for point in once]
    return [shuffled[i] for i in np.random.default_rng(seed).permutation(len(shuffled))]


def smoke_points() -> list[Point]:
    """Each kernel once, on a small shape."""
    kernels = ("dense", "dense_shrunk", "pack", "gather_gemv", "gate_up_gather", "mask_gemv", "csr")
    few = [{"op": "sparse", "kernel": name, "m": 1, "k": 11008, "n": 4096, "density": 0.1} for name in kernels]
    many = [
        {"op": "sparse", "kernel": name, "m": 256, "k": 3072, "n": 768, "density": 0.1}
        for name in ("tile_skip_gemm", "bsr")
    ]
    kinds: list[Point] = [*few, *many]
    points = [{**point, "mask": "bernoulli", "heat": "cold"} for point in kinds]
    return [{"op": "copy", "bytes": 1 << 28}, {"op": "launch", "how": "graph"}, *points, *gemm_points(count=8)]


POINTS: dict[str, Callable[[], list[Point]]] = {
    "smoke": smoke_points,
    "calibrate": calibrate_points,
    "sparse": sparse_points,
    "energy": energy_points,
}
