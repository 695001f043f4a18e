"""Build a design with Verilator once, and run cases through it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import UnavailableError
from .tools import SOURCES, cache_folder, run_logged, verilator_version

WRITE = np.dtype([("address", "<u4"), ("data", "<u8")])


class Case(NamedTuple):
    """What the bench does for one case.

    Parameters
    ----------
    writes : structured[n]
        Address (uint32) and data (uint64) of each write before the start.
    reads : uint32[r]
        Addresses read after ``done``.
    limit : int
        Cycles after which the design counts as hung.
    """

    writes: NDArray[np.void]
    reads: NDArray[np.uint32]
    limit: int


class Outcome(NamedTuple):
    """Clock edges from start to done (-1: never done), and the words read, as int64."""

    cycles: int
    words: NDArray[np.int64]


def build(source: str, top: str, params: Mapping[str, int], *, waveform: bool = False) -> Path:
    """Return the executable of a design, building it where its hash is new.

    Parameters
    ----------
    source : str
        File in ``hwmodels/reference/rtl``.
    top : str
        Module with the bench's ports.
    params : mapping
        Values for the module's parameters.
    waveform : bool
        Build with VCD tracing, which is slower.

    Raises
    ------
    UnavailableError
        If Verilator is missing, too old, or fails (the log is kept and named).
    """
    version = verilator_version()
    design, bench = SOURCES / source, SOURCES / "bench.cpp"
    parts = [version, top, sorted(params.items()), waveform, design.read_text(), bench.read_text()]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    final = cache_folder("rtl") / f"{top}-{digest}"
    executable = final / "obj" / "Vtop"
    if executable.exists():
        return executable
    final.mkdir(exist_ok=True)
    # built beside its place and moved in, so that a build that is interrupted never looks finished
    work = Path(tempfile.mkdtemp(prefix="obj-", dir=final))
    command = ["verilator", "--cc", "--exe", "--build", "-j", str(min(os.cpu_count() or 1, 4)), "-Wall", "-O3"]
    command += ["--prefix", "Vtop", "--top-module", top, "-Mdir", str(work)]
    command += [f"-G{name}={value}" for name, value in params.items()]
    command += ["-MAKEFLAGS", "OPT_FAST=-O1", "-MAKEFLAGS", "OPT_SLOW=-O0", "-MAKEFLAGS", "OPT_GLOBAL=-O0"]
    command += ["--trace"] if waveform else []
    run_logged([*command, str(design), str(bench)], final / "build.log", f"building {source} with Verilator")
    try:
        work.rename(final / "obj")
    except OSError:
        if not executable.exists():
            raise
    return executable


def run_cases(executable: Path, cases: Sequence[Case], vcd: Path | None = None) -> list[Outcome]:
    """Run cases one after the other in one process.

    Parameters
    ----------
    executable : Path
        From `build`.
    cases : sequence of Case
        What to load, run and read.
    vcd : Path, optional
        Receives the waveform; the executable must be built with ``waveform=True``.

    Raises
    ------
    UnavailableError
        If the simulation ends early.
    """
    stream = bytearray()
    for case in cases:
        stream += np.array([len(case.writes), len(case.reads)], dtype="<u4").tobytes()
        stream += np.array([case.limit], dtype="<u8").tobytes()
        stream += case.writes.tobytes() + case.reads.astype("<u4").tobytes()
    command = [str(executable)] + ([str(vcd)] if vcd else [])
    done = subprocess.run(command, input=bytes(stream), capture_output=True, timeout=1800, check=False)
    wanted = 8 * sum(1 + len(case.reads) for case in cases)
    if done.returncode or len(done.stdout) != wanted:
        message = done.stderr.decode(errors="replace").strip().splitlines()
        raise UnavailableError(
            f"the simulation '{executable}' ended early ({message[-1] if message else 'no message'}); "
            f"delete {executable.parent.parent} and build again"
        )
    words = np.frombuffer(done.stdout, dtype="<i8")
    outcomes, at = [], 0
    for case in cases:
        outcomes.append(Outcome(int(words[at]), words[at + 1 : at + 1 + len(case.reads)]))
        at += 1 + len(case.reads)
    return outcomes


def writes(*parts: tuple[NDArray[np.integer], NDArray[np.integer]]) -> NDArray[np.void]:
    """Join (addresses, data) pairs into one list of bench writes."""
    joined = np.empty(sum(np.size(address) for address, _ in parts), dtype=WRITE)
    at = 0
    for address, data in parts:
        size = np.size(address)
        joined["address"][at : at + size] = np.ravel(address)
        joined["data"][at : at + size] = (
            np.broadcast_to(data, np.shape(address)).astype(np.int64).ravel().view(np.uint64)
        )
        at += size
    return joined
