"""The designs that exist as RTL: what to build, how a problem is loaded, and what the kernel says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import hwmodels
from hwmodels import Op, PackedMask
from hwmodels.errors import nearest
from hwmodels.registry import kernel_of, params_of

from ...errors import InputError
from . import encode
from .build import Case
from .cases import Problem, Shape
from .encode import Ints, Params


@dataclass(frozen=True, eq=False)
class Design:
    """A design in RTL.

    Parameters
    ----------
    kernel : str
        Kernel family whose cycles it proves.
    arch : str
        Arch whose parameters the variants start from.
    source, top : str
        File in ``hwmodels/reference/rtl`` and its module with the bench's ports.
    builds : tuple of mapping
        Parameter sets that are built and run.
    limits : callable
        ``limits(params) -> Shape``: the largest problem of a build.
    load : callable
        ``load(problem, params) -> Case``.
    sums : callable
        ``sums(words, problem, params) -> int64[M, N]``.
    variant : callable
        ``variant(params) -> dict``: the arch's parameters that equal this build.
    constant : int
        Cycles from start to done beyond the kernel's, as the RTL's cycle contract gives them.
    idle_rows : callable
        ``idle_rows(problem, params) -> int``: rows without any work, which still pass a barrier in one cycle that the
        kernel does not count.
    """

    kernel: str
    arch: str
    source: str
    top: str
    builds: tuple[Mapping[str, int], ...]
    limits: Callable[[Params], Shape]
    load: Callable[[Problem, Params], Case]
    sums: Callable[[Ints, Problem, Params], Ints]
    variant: Callable[[Params], dict[str, Any]]
    constant: int
    idle_rows: Callable[[Problem, Params], int] = lambda problem, params: 0

    def kernel_cycles(self, problem: Problem, params: Params) -> int:
        """Cycles that the kernel counts."""
        arch = hwmodels.load_arch(self.arch).with_(**self.variant(params))
        op = Op(
            name=problem.label,
            layer=0,
            m=problem.activation.shape[0],
            k=problem.activation.shape[1],
            n=problem.weight.shape[0],
            activation=PackedMask.from_bool(problem.activation != 0),
            weight=PackedMask.from_bool(problem.weight != 0),
        )
        return kernel_of(arch).count(op, params_of(arch), arch).cycles

    def offset(self, problem: Problem, params: Params) -> int:
        """Documented cycles of the hardware beyond the kernel's."""
        return self.constant + self.idle_rows(problem, params)


def _rows_without_filled_bricks(problem: Problem, params: Params) -> int:
    return 0 if params["EMPTY_COSTS"] else int((~problem.activation.any(axis=1)).sum())


def _rows_without_a_match(problem: Problem, params: Params) -> int:
    matches = (problem.activation != 0).astype(np.int64) @ (problem.weight != 0).T
    return int((~matches.any(axis=1)).sum())


DESIGNS: dict[str, Design] = {
    design.kernel: design
    for design in (
        Design(
            kernel="systolic",
            arch="systolic_32x32",
            source="systolic.sv",
            top="ws_top",
            builds=({"ROWS": 8, "COLS": 8}, {"ROWS": 4, "COLS": 6}),
            limits=lambda p: Shape(24, 4 * p["ROWS"], 3 * p["COLS"]),
            load=encode.systolic,
            sums=encode.systolic_sums,
            variant=lambda p: {"rows": p["ROWS"], "columns": p["COLS"]},
            constant=1,
        ),
        Design(
            kernel="cnvlutin",
            arch="cnvlutin",
            source="cnvlutin.sv",
            top="cnv_top",
            builds=({"EMPTY_COSTS": 1, "FILTERS": 4}, {"EMPTY_COSTS": 0, "FILTERS": 2}),
            limits=lambda p: Shape(12, 1024, p["FILTERS"]),
            load=encode.cnvlutin,
            sums=encode.cnvlutin_sums,
            variant=lambda p: {"filters": p["FILTERS"], "tiles": 1, "empty_brick_cycles": bool(p["EMPTY_COSTS"])},
            constant=3,
            idle_rows=_rows_without_filled_bricks,
        ),
        Design(
            kernel="tensordash",
            arch="tensordash",
            source="tensordash.sv",
            top="td_top",
            builds=({"ROWS": 1, "COLS": 1}, {"ROWS": 4, "COLS": 2}),
            limits=lambda p: Shape(3 * p["ROWS"], 320, p["COLS"]),
            load=encode.tensordash,
            sums=encode.tensordash_sums,
            variant=lambda p: {"rows": p["ROWS"], "columns": p["COLS"], "tiles": 1},
            constant=2,
        ),
        Design(
            kernel="eie",
            arch="eie",
            source="eie.sv",
            top="eie_top",
            builds=({"PES": 4, "RING": 8}, {"PES": 8, "RING": 2}),
            limits=lambda p: Shape(1, 200, 40 * p["PES"]),
            load=encode.eie,
            sums=encode.eie_sums,
            variant=lambda p: {"pes": p["PES"], "fifo_depth": p["RING"], "bias": True},
            constant=-2,
        ),
        Design(
            kernel="sparten",
            arch="sparten",
            source="sparten.sv",
            top="sp_top",
            builds=({"CUS": 8, "CHUNKS": 4},),
            limits=lambda p: Shape(12, 128 * p["CHUNKS"], p["CUS"]),
            load=encode.sparten,
            sums=encode.sparten_sums,
            variant=lambda p: {"clusters": 1, "units": p["CUS"], "balancing": "none"},
            constant=3,
            idle_rows=_rows_without_a_match,
        ),
    )
}


def design_of(name: str) -> Design:
    """Find the RTL of an arch or kernel.

    Raises
    ------
    InputError
        If the name is unknown, or its kernel has no RTL.
    """
    if name in DESIGNS:
        return DESIGNS[name]
    if name not in hwmodels.list_archs():
        raise InputError(f"unknown arch '{name}'" + nearest(name, {*DESIGNS, *hwmodels.list_archs()}))
    kernel = hwmodels.load_arch(name).kernel
    if kernel not in DESIGNS:
        raise InputError(f"arch '{name}' (kernel '{kernel}') has no RTL; these kernels have: {', '.join(DESIGNS)}")
    return DESIGNS[kernel]
