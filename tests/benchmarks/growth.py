"""How time and memory of each kernel grow with tokens, K, N and threads: a log-log figure and a table.

python tests/benchmarks/growth.py [FOLDER]
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hwmodels import Op, PackedMask, load_arch
from hwmodels.registry import kernel_of, params_of

KERNELS = (
    "systolic_32x32",
    "cnvlutin",
    "tile_barrier_32x32",
    "tensordash",
    "eie",
    "eyeriss_v2_pe",
    "sparten_one_sided",
    "sparten",
    "dstc",
    "scnn",
)
BASE = {"tokens": 512, "K": 1536, "N": 768, "threads": 1}
SWEEPS: dict[str, tuple[int, ...]] = {
    "tokens": (128, 512, 2048, 8192),
    "K": (768, 1536, 3072, 6144),
    "N": (192, 384, 768, 1536),
    "threads": (1, 2),
}
ROUNDS = 5
LEAST_S = 0.05  # short calls are repeated until they add up to this


def measure(name: str, axis: str, value: int) -> dict[str, Any]:
    """Best seconds and peak of allocated bytes of one kernel at one point."""
    size = {**BASE, axis: value}
    arch = load_arch(name)
    kernel, params = kernel_of(arch), params_of(arch)
    mask = PackedMask.bernoulli(size["tokens"], size["K"], 0.3, 0)
    weight = PackedMask.bernoulli(size["N"], size["K"], 0.5, 1) if kernel.two_sided else None

    def once(_: int = 0) -> None:
        kernel.count(Op("down", 0, size["tokens"], size["K"], size["N"], mask, weight), params, arch)

    def work() -> None:
        if axis != "threads":
            once()
            return
        with ThreadPoolExecutor(value) as pool:
            list(pool.map(once, range(8)))

    # one thread is measured by its own processor time, which other programs' turns do not count in
    clock = time.perf_counter if axis == "threads" else time.thread_time
    work()
    taken: list[float] = []
    while len(taken) < ROUNDS or (sum(taken) < LEAST_S and len(taken) < 20 * ROUNDS):
        start = clock()
        work()
        taken.append(clock() - start)
    tracemalloc.start()
    once()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"kernel": name, "axis": axis, "value": value, "seconds": min(taken), "peak_bytes": peak}


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Exponent of the growth along each axis, from the largest two points; 1 is linear."""
    rows = []
    for (kernel, axis), part in table.groupby(["kernel", "axis"], sort=False):
        ends = part.sort_values("value").tail(2)
        ratio = np.log(ends["value"].iloc[1] / ends["value"].iloc[0])
        rows.append(
            {
                "kernel": kernel,
                "axis": axis,
                "time": np.log(ends["seconds"].iloc[1] / ends["seconds"].iloc[0]) / ratio,
                "memory": np.log(ends["peak_bytes"].iloc[1] / ends["peak_bytes"].iloc[0]) / ratio,
            }
        )
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Plot seconds and megabytes along each axis, one line for each kernel."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    from simkit.plots.style import MARKERS, PALETTE

    figure, grid = plt.subplots(2, len(SWEEPS), figsize=(12, 6), sharey="row", layout="constrained")
    for column, axis in enumerate(SWEEPS):
        for index, kernel in enumerate(KERNELS):
            part = table[(table["kernel"] == kernel) & (table["axis"] == axis)]
            look = {
                "marker": MARKERS[index % len(MARKERS)],
                "color": PALETTE[index % len(PALETTE)],
                "linestyle": "-" if index < len(PALETTE) else "--",
            }
            label = kernel if column == 0 else None
            grid[0][column].loglog(part["value"], part["seconds"] * 1e3, label=label, **look)
            grid[1][column].loglog(part["value"], part["peak_bytes"] / 1e6, **look)
        if axis in ("tokens", "K"):
            ends = np.array(SWEEPS[axis], dtype=float)
            grid[0][column].loglog(ends, ends / ends[-1] * 30, color="0.7", linewidth=4, zorder=0)
            grid[0][column].annotate("linear", (ends[1], ends[1] / ends[-1] * 30), color="0.5", ha="right")
        for row in grid:
            row[column].set_xticks(SWEEPS[axis], [str(value) for value in SWEEPS[axis]])
            row[column].minorticks_off()
        grid[1][column].set_xlabel(axis)
    grid[0][0].set_ylabel("time (ms)")
    grid[1][0].set_ylabel("peak of allocations (MB)")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main(folder: Path) -> None:
    """Measure, print and draw."""
    points = [(name, axis, value) for name in KERNELS for axis, values in SWEEPS.items() for value in values]
    table = pd.DataFrame([measure(*point) for point in points])
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "growth.csv", index=False)
    draw(table, folder / "growth.png")
    grown = slopes(table)
    print("exponent of growth between the two largest sizes (1 = linear)")
    for what in ("time", "memory"):
        print(what)
        print(grown.pivot_table(index="kernel", columns="axis", values=what, sort=False).round(2).to_string())
    print(f"table and figure in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/bench"))
