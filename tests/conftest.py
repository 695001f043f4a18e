"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# two test processes on two cores: each keeps to one thread of BLAS
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent / "shared" / "reference"
DATA = ROOT / "tests" / "data"


@pytest.fixture
def reference() -> Path:
    """Folder with other people's measured data, read in place."""
    if not REFERENCE.is_dir():
        pytest.skip(f"measured data of others is not at {REFERENCE}")
    return REFERENCE


@pytest.fixture(scope="session")
def small_trace_path() -> Path:
    """The committed small real trace."""
    return DATA / "minilm_relu_small.zarr"
