"""Where an artefact came from: hashes, versions, git state, device."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwmodels.registry import kernel_of
from hwmodels.sources import kernel_hash, package_hash
from traces import provenance

if TYPE_CHECKING:
    from hwmodels import Arch

PACKAGES = (
    "zeroskip",
    "numpy",
    "scipy",
    "numba",
    "torch",
    "transformers",
    "peft",
    "zarr",
    "pandas",
    "pyarrow",
)


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Describe this process: package versions, Python, operating system, processor, git state of the source."""
    return {
        "versions": dict.fromkeys(PACKAGES, "absent") | provenance.versions(PACKAGES),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": provenance.processor() or "unknown",
        "cpus": os.cpu_count(),
        "git": git_state(),
    }


def git_state() -> dict[str, Any]:
    """Return the commit of the source tree and whether it was modified; empty for an installed wheel."""
    state = provenance.git_state()
    return {"commit": state["commit"], "modified": state["dirty"]} if state else {}


def key_of(*parts: object) -> str:
    """Content key over JSON-able parts: 16 hex digits of SHA-256."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def model_sources() -> str:
    """Hash of the code that decides counts, so that a changed kernel computes afresh.

    All of `hwmodels`, and the modules that turn a trace into ops and add up what was counted, wherever they live.
    """
    import traces

    from .engine.layout import Tally
    from .engine.workload import Workload

    owners = (Workload, Tally, traces.Trace, traces.OpSpec)
    files = [Path(sys.modules[owner.__module__].__file__ or "") for owner in owners]
    return key_of(package_hash(), [hashlib.sha256(path.read_bytes()).hexdigest() for path in files])


def kernel_sources(arch: Arch) -> str:
    """Hash of the code that decides an arch's counts, part of every run key: `model_sources`, and its kernel's own.

    A kernel that a third party or a notebook registered counts with its helpers; see `hwmodels.sources.kernel_hash`.
    """
    own = kernel_hash(kernel_of(arch))
    return key_of(model_sources(), own) if own else model_sources()
