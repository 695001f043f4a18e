"""Provenance of artefacts: hashes, versions, git state, device."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import lru_cache
from typing import Any

from traces import provenance

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
