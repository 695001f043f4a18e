"""What a mapping comes to, for people: room and traffic of each level, reuse, and what binds."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from .arch import Arch
from .counts import Compute
from .errors import InputError
from .hierarchy import levels_of
from .mapping.launches import Ways
from .mapping.levels import OPERANDS, Level
from .mapping.residency import Residence
from .mapping.space import Mapping, holds_partial_sums, places, share_of
from .memory import bytes_per_cycle, movement
from .op import Op
from .registry import kernel_of, params_of, seen_by

Json = dict[str, Any]


def explain(op: Op, arch: Arch, residence: Residence | None = None) -> Json:
    """Explain the mapping of an op: of its largest launch, with the traffic of all.

    Parameters
    ----------
    op, arch
        What runs where.
    residence : Residence, optional
        Where its weights live; by default it has the chip to itself.

    Returns
    -------
    dict
        ``op``, ``dataflow``, ``mapping`` (tile, order, stays, doubled, spills), ``levels`` (name, kind, size_bytes,
        used_bytes, bytes_per_s, holds), ``traffic`` (one entry an operand: bytes between its level and the one above in
        whole bursts, the useful bytes among them that fill the level, MACs a byte) and ``cycles`` with what
        ``binds``: compute, the exposed fill, or bandwidth.

    Raises
    ------
    InputError
        If the arch's kernel times memory itself, or no mapping fits.
    """
    kernel = kernel_of(arch)
    op = seen_by(kernel, op, arch)
    compute = kernel.count(op, params_of(arch), arch)
    if compute.dram_bytes is not None:
        raise InputError(f"arch '{arch.name}': kernel '{kernel.name}' times memory itself and has no mapping")
    moved = movement(op, arch, compute, residence)
    rate = bytes_per_cycle(arch)
    ways = moved.ways.at(rate)
    largest = int(np.argmax(ways.tiles.bytes))
    tokens = _tokens(op, ways, largest) * (op.repeat // moved.copies)
    mapping = ways.mappings[int(ways.mapping[largest])]
    shape = (tokens, op.k, op.n)
    levels = levels_of(arch)
    spills = "output" if ways.tiles.outputs.sum() * moved.copies > _written(op, arch) * 1.5 else ""
    return {
        "arch": arch.name,
        "op": {"name": op.name, "m": op.m, "k": op.k, "n": op.n, "batch": op.batch or op.m, "repeat": op.repeat},
        "launches": len(ways.first) * moved.copies,
        "dataflow": arch.dataflow._asdict(),
        "search": "by hand" if arch.mapping.tile else arch.mapping.search,
        "mapping": {
            "tile": dict(zip("mkn", mapping.tile, strict=True)),
            "order": mapping.order,
            "stays": sorted(mapping.stays),
            "doubled": sorted(mapping.doubled),
            "spills": [spills] if spills else [],
        },
        "levels": [_level(level, op, arch, mapping, shape, ways) for level in levels],
        "traffic": _traffic(op, levels, ways, moved.copies),
        "cycles": _cycles(compute, ways, rate, moved.copies),
    }


def _tokens(op: Op, ways: Ways, launch: int) -> int:
    ends = np.append(ways.tiles.starts, op.m)
    return int(ends[launch + 1] - ends[launch])


def _written(op: Op, arch: Arch) -> float:
    return op.m * op.n * op.repeat * int(arch.bits["activation"].value) / 8


def _level(level: Level, op: Op, arch: Arch, mapping: Mapping, shape: tuple[int, int, int], ways: Ways) -> Json:
    out: Json = {"name": level.name, "kind": level.kind, "holds": [name for name in OPERANDS if name in level.holds]}
    out["bytes_per_s"] = level.bytes_per_s if isfinite(level.bytes_per_s) else None
    if not isfinite(level.size_bytes):
        return {**out, "size_bytes": None}
    grain = arch.dataflow.grain(*shape)
    partial = holds_partial_sums(shape, mapping.tile, grain, places(mapping.order))
    bits = {"activation": "activation", "weight": "weight", "output": "accumulator" if partial else "activation"}
    out["size_bytes"] = level.size_bytes
    out["elements"] = {
        name: share_of(name, shape, grain, mapping).elements
        for name in out["holds"]
        if name != "weight" or ways.fetched.any()
    }
    words = {name: int(arch.bits[bits[name]].value) / 8 for name in out["elements"]}  # type: ignore[index]
    out["used_bytes"] = sum(words[name] * size for name, size in out["elements"].items())
    return out


def _traffic(op: Op, levels: list[Level], ways: Ways, copies: int) -> list[Json]:
    """Useful bytes between the top and each level; bursts are the top's own."""
    top = levels[0].name
    bytes_of = {
        "activation": (ways.tiles.inputs, ways.loaded),
        "weight": (ways.tiles.weights, ways.fetched),
        "output": (ways.tiles.outputs, None),
    }
    found = []
    for operand in OPERANDS:
        level = next((one.name for one in levels[1:] if operand in one.holds), "array")
        in_bursts, useful = bytes_of[operand]
        crossing = float(in_bursts.sum()) * copies
        entry = {"level": level, "operand": operand, "above": top, "bytes": crossing}
        if useful is not None:
            entry["fill_bytes"] = float(useful.sum()) * copies
        entry["macs_per_byte"] = op.macs / crossing if crossing else None
        found.append(entry)
    return found


def _cycles(compute: Compute, ways: Ways, rate: float, copies: int) -> Json:
    tiles = ways.tiles
    moving = tiles.bytes / rate
    exposed = tiles.fill / rate
    bound = "bandwidth" if moving.sum() > (tiles.busy + exposed).sum() else "compute"
    return {
        "compute": compute.cycles,
        "transfer": float(moving.sum()) * copies,
        "exposed": float(exposed.sum()) * copies,
        "stall": tiles.stall_cycles(rate) * copies,
        "binds": "fill" if bound == "compute" and exposed.sum() > tiles.busy.sum() else bound,
    }
