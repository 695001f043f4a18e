"""Run keys: a kernel that is registered anew counts anew, whatever a folder holds of the old one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import simkit as sk
from hwmodels.registry import built_in, kernels
from simkit.engine.keys import kernel_sources, model_sources

FACTOR = 1


def slower(times: Callable[[int], int]) -> Any:
    """Kernel of `systolic_32x32` whose cycles a helper of this module stretches."""
    plain = built_in()["systolic"]

    def count(op: Any, params: Any, arch: Any) -> Any:
        counts = plain.count(op, params, arch)
        rows = None if counts.row_cycles is None else counts.row_cycles * times(1)
        return replace(
            counts,
            cycles=times(counts.cycles),
            dense_cycles=times(counts.dense_cycles),
            row_cycles=rows,
        )

    return replace(plain, count=count)


def test_a_kernel_registered_anew_counts_anew(
    plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cycles() -> int:
        found = sk.sweep([plain_trace_path], ["systolic_32x32"], ops=["down"], out=tmp_path, progress=False)
        return int(found.ops["cycles"].sum())

    as_it_ships = cycles()
    for register, factor in ((lambda cycles: 2 * cycles, 2), (lambda cycles: 3 * cycles, 3)):
        monkeypatch.setitem(kernels(), "systolic", slower(register))
        assert cycles() == factor * as_it_ships
    monkeypatch.setitem(kernels(), "systolic", built_in()["systolic"])
    assert cycles() == as_it_ships
    assert len(list(tmp_path.glob("*.parquet"))) == 3  # the last one was found again


def test_a_changed_global_of_a_kernel_counts_anew(
    plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels(), "systolic", slower(lambda cycles: FACTOR * cycles))
    trace, arch = sk.load_trace(plain_trace_path), sk.arch("systolic_32x32")
    first = sk.replay(trace, arch, ops=["down"])
    monkeypatch.setitem(globals(), "FACTOR", 5)
    second = sk.replay(trace, arch, ops=["down"])
    assert not set(first.meta["runs"]) & set(second.meta["runs"])
    assert second.ops["cycles"].sum() == 5 * first.ops["cycles"].sum()


def test_the_key_holds_what_turns_a_trace_into_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def now() -> str:
        model_sources.cache_clear()
        return model_sources()

    before, read = now(), Path.read_bytes
    try:
        for name in ("workload.py", "layout.py", "ops.py", "trace.py"):
            monkeypatch.setattr(
                Path, "read_bytes", lambda path, name=name: read(path) + b"#" * (path.name.endswith(name))
            )
            assert now() != before, name
    finally:
        monkeypatch.undo()
        model_sources.cache_clear()


def test_kernels_of_the_package_share_one_key() -> None:
    assert {kernel_sources(sk.arch(name)) for name in ("cnvlutin", "eie", "h100_sxm")} == {model_sources()}
