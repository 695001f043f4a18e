"""Inspection of an installation: packages, tools and devices that are present or missing."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from traces.fetch import cache_folder

from .provenance import environment

Row = dict[str, str]


def examine() -> list[Row]:
    """List checks as ``{what, state, detail}``; state is ok, absent (optional) or broken (with the remedy)."""
    facts = environment()
    rows: list[Row] = [_row("python", "ok", f"{facts['python']} at {sys.prefix}"), _row("cpu", "ok", _cpu(facts))]
    for name, version in facts["versions"].items():
        if name != "zeroskip":
            rows.append(_row(name, "broken" if version == "absent" else "ok", version))
    return [*rows, _owner(), _cuda(), *_tools(), _cache(), _disk()]


def _row(what: str, state: str, detail: str) -> Row:
    return {"what": what, "state": state, "detail": detail}


def _cpu(facts: dict[str, object]) -> str:
    return f"{facts['cpu']}, {facts['cpus']} cores"


def _owner() -> Row:
    from ._owner import check_owner

    try:
        check_owner()
    except ImportError as error:
        return _row("package traces", "broken", str(error))
    return _row("package traces", "ok", "ours")


def _cuda() -> Row:
    import torch

    if not torch.cuda.is_available():
        return _row("GPU", "absent", "no CUDA device; everything but 'simkit measure' on a GPU works")
    return _row("GPU", "ok", torch.cuda.get_device_name())


def _tools() -> list[Row]:
    verilator = shutil.which("verilator")
    triton = find_spec("triton") is not None
    return [
        _row(
            "verilator", "ok" if verilator else "absent", verilator or "RTL checks need it: apt-get install verilator"
        ),
        _row(
            "triton",
            "ok" if triton else "absent",
            "present" if triton else "GPU kernels need it: pip install zeroskip[gpu]",
        ),
    ]


def _cache() -> Row:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return _row("cache", "broken", f"{folder}: {error.strerror}; set ZEROSKIP_CACHE to a folder you can write")
    return _row("cache", "ok", str(folder))


def _disk() -> Row:
    free = shutil.disk_usage(Path.cwd()).free
    state = "ok" if free > 2e9 else "broken"
    return _row("disk", state, f"{free / 1e9:.1f} GB free here" + ("" if state == "ok" else "; the demo needs 2 GB"))
