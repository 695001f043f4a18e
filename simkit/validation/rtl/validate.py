"""Hold kernels against RTL: the same masks through both, the same cycles and sums out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .build import Case, build, run_cases
from .cases import Problem, draw, from_masks
from .designs import DESIGNS, Design, design_of
from .encode import Params

TRACE_OPS = 12


def validate_rtl(
    archs: Sequence[str] | None = None,
    trace: str | os.PathLike[str] | None = None,
    vcd: str | os.PathLike[str] | None = None,
    cases: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Run problems through RTL and kernels.

    Parameters
    ----------
    archs : sequence of str, optional
        Names of archs or kernels; all five designs by default.
    trace : path, optional
        A trace whose recorded masks run as well, cut to what the built designs hold.
    vcd : path, optional
        ``FILE.vcd`` receives the waveform of one case (with several designs ``-<design>`` is put before the ending);
        any other name is a folder for ``<design>.vcd``.
    cases : int
        Random, clustered, empty and full problems for each design, over all its builds.
    seed : int
        Of the problems.

    Returns
    -------
    list of dict
        One for each case: ``arch, build, case, kernel_cycles, offset, rtl_cycles, cycles_equal, values_equal``.
        `offset` is the documented difference; ``cycles_equal`` is ``rtl_cycles == kernel_cycles + offset``.

    Raises
    ------
    InputError
        If an arch is unknown or has no RTL.
    UnavailableError
        If Verilator is missing, old, or a build fails.
    """
    designs = list(dict.fromkeys(design_of(name) for name in archs)) if archs else list(DESIGNS.values())
    masks = _trace_masks(trace) if trace is not None else []
    jobs = [(design, params) for design in designs for params in design.builds]
    with ThreadPoolExecutor(2) as pool:
        executables = list(pool.map(lambda job: build(job[0].source, job[0].top, job[1]), jobs))
    rows: list[dict[str, Any]] = []
    for (design, params), executable in zip(jobs, executables, strict=True):
        limits = design.limits(params)
        share = -(-cases // len(design.builds))
        problems = draw(share, limits, seed) + from_masks(masks, limits, seed)
        rows += compare(design, params, executable, problems)
    if vcd is not None:
        for design in designs:
            write_waveform(design, _waveform_path(Path(vcd), design, alone=len(designs) == 1))
    return rows


def _waveform_path(vcd: Path, design: Design, alone: bool) -> Path:
    if vcd.suffix != ".vcd":
        return vcd / f"{design.kernel}.vcd"
    return vcd if alone else vcd.with_stem(f"{vcd.stem}-{design.kernel}")


def compare(design: Design, params: Params, executable: Path, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Run problems through one build and its kernel; see `validate_rtl` for the rows."""
    loaded: list[Case] = [design.load(problem, params) for problem in problems]
    text = ",".join(f"{name}={value}" for name, value in params.items())
    rows = []
    for problem, outcome in zip(problems, run_cases(executable, loaded), strict=True):
        kernel_cycles, offset = design.kernel_cycles(problem, params), design.offset(problem, params)
        sums = design.sums(outcome.words, problem, params)
        rows.append(
            {
                "arch": design.kernel,
                "build": text,
                "case": problem.label,
                "kernel_cycles": kernel_cycles,
                "offset": offset,
                "rtl_cycles": outcome.cycles,
                "cycles_equal": outcome.cycles == kernel_cycles + offset,
                "values_equal": bool(np.array_equal(sums, problem.expected)),
            }
        )
    return rows


def write_waveform(design: Design, path: Path, seed: int = 1) -> Path:
    """Write the waveform of one clustered problem on a design's first build as VCD."""
    params = design.builds[0]
    executable = build(design.source, design.top, params, waveform=True)
    problem = draw(2, design.limits(params), seed)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    run_cases(executable, [design.load(problem, params)], vcd=path.resolve())
    return path


def _trace_masks(path: str | os.PathLike[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """First rows of the recorded activation masks of a trace, spread over its layers."""
    from hwmodels import PackedMask

    from ...engine.inputs import load_trace
    from ...engine.workload import build_ops

    ops = [op for op in build_ops(load_trace(path)) if op.activation is not None]
    chosen = ops[:: max(1, -(-len(ops) // TRACE_OPS))]
    masks = []
    for op in chosen:
        assert op.activation is not None
        words = next(iter(op.activation.blocks(64)))
        masks.append((f"trace-{op.name}.{op.layer}", PackedMask(np.ascontiguousarray(words), op.k).to_bool()))
    return masks
