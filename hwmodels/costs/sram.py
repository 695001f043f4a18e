"""Memory macros from the CACTI 7 grid: energy of an access, leakage, area and cycle time by size and width.

The grid ships as ``hwmodels/tables/cacti7_grid.csv``: CACTI 7.0 (HewlettPackard/cacti), scratch RAM, one read/write
port, one bank, 330 K, no ECC, optimised for energy, leakage and area. Between its points every quantity is linear in
the logarithms of size, width and node, so a grid point comes out exactly.

A macro never costs less per access than a smaller or narrower one, for the larger one could serve in its place: where
CACTI's own search is not monotone (16 of the 589 SRAM points, no read of eDRAM), the cheaper, wider or larger
point stands for both.

A point left out and predicted from its neighbours of half and twice the size, or a quarter and four times, differs from
CACTI by 3.6 % in reads, 4.5 % in writes, 3.7 % in area, 2.3 % in leakage and 7.0 % in cycle time at the median of 563
points, and by less than 21 % (cycle time 37 %) at nine of ten; see `held_out_errors`.

Below 22 nm the energy scaling is the lower of two readings: another port of CACTI gives 5.1 pJ for 64 KiB, 128 bit at
7 nm, where 1.8 pJ comes out here.

Source: R. Balasubramonian et al., "CACTI 7", ACM TACO 14 (2017), doi:10.1145/3085572.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import resources
from typing import Literal, NamedTuple

from ..errors import InputError, nearest
from ..scaling import energy_factor
from .nodes import LARGEST_NM, area_factor

Cell = Literal["itrs-hp", "itrs-lop", "itrs-lstp", "lp-dram"]
CELLS: tuple[Cell, ...] = ("itrs-hp", "itrs-lop", "itrs-lstp", "lp-dram")
SOURCE = "balasubramonian2017cacti7"

# CACTI takes an eDRAM write for the rewrite of a whole row (638 pJ for 128 bits of 64 KiB). A write of the width of a
# read drives the same bit lines, so it is priced as this many reads. Assumed.
EDRAM_WRITE_PER_READ = 1.1


class Macro(NamedTuple):
    """Cost of one memory macro.

    Parameters
    ----------
    read_pj, write_pj : float
        Energy of one access of the whole width, pJ.
    leakage_w : float
        Sub-threshold and gate leakage, W.
    area_mm2 : float
        mm2.
    cycle_s : float
        Least time between two accesses, s.
    status : {"published", "assumed"}
        ``assumed`` where the node is scaled beyond the grid, or the write is an eDRAM's.
    """

    read_pj: float
    write_pj: float
    leakage_w: float
    area_mm2: float
    cycle_s: float
    status: str


class Point(NamedTuple):
    """A grid point in plain units, its accesses made monotone."""

    read_pj: float
    write_pj: float
    leakage_w: float
    area_mm2: float
    cycle_s: float


Rows = dict[int, dict[int, Point]]


@lru_cache(maxsize=1)
def raw_grid() -> dict[tuple[str, float], Rows]:
    """Return CACTI's own figures: (cell, node in nm) -> size in bytes -> width in bits -> point."""
    text = resources.files("hwmodels").joinpath("tables/cacti7_grid.csv").read_text(encoding="utf-8")
    grid: dict[tuple[str, float], Rows] = {}
    for row in csv.DictReader(text.splitlines()):
        rows = grid.setdefault((row["cell"], float(row["node_nm"])), {})
        rows.setdefault(int(row["size_bytes"]), {})[int(row["width_bits"])] = Point(
            float(row["read_pj"]),
            float(row["write_pj"]),
            1e-3 * (float(row["leakage_mw"]) + float(row["gate_leakage_mw"])),
            float(row["area_mm2"]),
            1e-9 * float(row["cycle_ns"]),
        )
    return grid


@lru_cache(maxsize=1)
def _grid() -> dict[tuple[str, float], Rows]:
    return {
        (cell, node): _monotone(_with_writes(rows) if cell == "lp-dram" else rows)
        for (cell, node), rows in raw_grid().items()
    }


def _with_writes(rows: Rows) -> Rows:
    return {
        size: {width: point._replace(write_pj=EDRAM_WRITE_PER_READ * point.read_pj) for width, point in row.items()}
        for size, row in rows.items()
    }


def _monotone(rows: Rows) -> Rows:
    out: Rows = {}
    for size in sorted(rows, reverse=True):
        larger = [out[other] for other in out]
        row: dict[int, Point] = {}
        for width in sorted(rows[size], reverse=True):
            point = rows[size][width]
            above = [*row.values(), *(other[width] for other in larger if width in other)]
            row[width] = point._replace(
                read_pj=min([point.read_pj, *(other.read_pj for other in above)]),
                write_pj=min([point.write_pj, *(other.write_pj for other in above)]),
            )
        out[size] = dict(sorted(row.items()))
    return dict(sorted(out.items()))


@lru_cache(maxsize=4096)
def macro(cell: str, node_nm: float, size_bytes: float, width_bits: float) -> Macro:
    """Price one memory macro.

    Parameters
    ----------
    cell : {"itrs-hp", "itrs-lop", "itrs-lstp", "lp-dram"}
        Devices of cells and periphery: fast, low operating power, low standby power, or eDRAM.
    node_nm : float
        Technology node, nm. Below the grid (22 nm; 32 nm for eDRAM) and above it (90 to 180 nm) energies follow
        `scaling.energy_factor`, areas and leakage the published SRAM cells (`nodes.area_factor`; eDRAM the square of
        the node); the cycle time stays below, and grows with the node above.
    size_bytes : float
        Capacity, byte, 1 KiB to 16 MiB (eDRAM from 64 KiB).
    width_bits : float
        Bits of one access, 32 to 512 where the grid has them.

    Returns
    -------
    Macro
        Costs of one macro with one port.

    Raises
    ------
    InputError
        If cell, node, size or width lies outside the grid; the message names the range.
    """
    if cell not in CELLS:
        raise InputError(f"unknown memory cell '{cell}'" + nearest(cell, CELLS))
    nodes = sorted(node for known, node in _grid() if known == cell)
    if not 7.0 <= node_nm <= LARGEST_NM:
        raise InputError(
            f"no {cell} memory at {node_nm:g} nm; the CACTI grid and its scaling span 7 to {LARGEST_NM:g} nm"
        )
    if not nodes[0] <= node_nm <= nodes[-1]:
        end = nodes[0] if node_nm < nodes[0] else nodes[-1]
        return _beyond_grid(cell, node_nm, end, size_bytes, width_bits)
    above = next(node for node in nodes if node >= node_nm)
    upper = _at_node(cell, above, size_bytes, width_bits)
    if above == node_nm:
        point = upper
    else:
        below = nodes[nodes.index(above) - 1]
        share = math.log(node_nm / below) / math.log(above / below)
        point = _between(_at_node(cell, below, size_bytes, width_bits), upper, share)
    return Macro(*point, status="assumed" if cell == "lp-dram" else "published")


def _beyond_grid(cell: str, node_nm: float, end: float, size_bytes: float, width_bits: float) -> Macro:
    point = _at_node(cell, end, size_bytes, width_bits)
    energy = energy_factor(end, node_nm)
    shrink = (node_nm / end) ** 2 if cell == "lp-dram" else area_factor(end, node_nm)
    return Macro(
        point.read_pj * energy,
        point.write_pj * energy,
        point.leakage_w * shrink,
        point.area_mm2 * shrink,
        point.cycle_s * max(1.0, node_nm / end),
        status="assumed",
    )


def _at_node(cell: str, node_nm: float, size_bytes: float, width_bits: float) -> Point:
    return interpolate(_grid()[cell, node_nm], size_bytes, width_bits, f"{cell} memory at {node_nm:g} nm")


def interpolate(rows: Rows, size_bytes: float, width_bits: float, what: str) -> Point:
    """Interpolate one node's grid, log-log in size and width.

    Raises
    ------
    InputError
        If the point lies outside `rows`; `what` names them.
    """

    def at_size(size: int) -> Point:
        row = rows[size]
        ends = f"at {size:,} byte the CACTI grid has widths of {min(row)} to {max(row)} bit"
        hint = "use more banks side by side, or a wider access of which a part is used"
        return _along(list(row), row.__getitem__, width_bits, f"{what}: width of {width_bits:g} bit; {ends}; {hint}")

    sizes = list(rows)
    ends = f"the CACTI grid spans {sizes[0]:,} to {sizes[-1]:,} byte"
    hint = "smaller ones are register files, larger ones several banks"
    return _along(sizes, at_size, size_bytes, f"{what}: size of {size_bytes:,.0f} byte; {ends}; {hint}")


def _along(knots: Iterable[int], at: Callable[[int], Point], where: float, error: str) -> Point:
    known = sorted(knots)
    if not known[0] <= where <= known[-1]:
        raise InputError(error)
    place = bisect_left(known, where)
    if known[place] == where:
        return at(known[place])
    low, high = known[place - 1], known[place]
    return _between(at(low), at(high), math.log(where / low) / math.log(high / low))


def _between(low: Point, high: Point, share: float) -> Point:
    return Point(*(a * (b / a) ** share for a, b in zip(low, high, strict=True)))


def held_out_errors() -> dict[str, list[float]]:
    """Interpolation error: each inner grid point predicted from its two neighbours in size, the point itself left out.

    Returns
    -------
    dict of str to list of float
        Quantity (a field of `Point`) -> relative errors ``predicted / CACTI - 1``, over all cells and nodes. Neighbours
        are half or twice the size, or a quarter or four times, as the grid has them, so the errors bound those of an
        interpolation inside one step.
    """
    errors: dict[str, list[float]] = {name: [] for name in Point._fields}
    for rows in raw_grid().values():
        for width in sorted({width for row in rows.values() for width in row}):
            sizes = sorted(size for size, row in rows.items() if width in row)
            for low, size, high in zip(sizes, sizes[1:], sizes[2:], strict=False):
                share = math.log(size / low) / math.log(high / low)
                guess = _between(rows[low][width], rows[high][width], share)
                for name, predicted, true in zip(Point._fields, guess, rows[size][width], strict=True):
                    errors[name].append(predicted / true - 1)
    return errors
