"""Shared fixtures."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# two test processes on two cores: each keeps to one thread of BLAS
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
# Triton chooses its interpreter when a kernel is decorated, so before any test imports one
os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent / "shared" / "reference"
DATA = ROOT / "tests" / "data"


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """A command that runs inside a test sets up logging for its process; the next test starts without that."""
    loggers = [logging.getLogger(name) for name in ("simkit", "hwmodels", "traces")]
    kept = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for one, (one.handlers, level, one.propagate) in zip(loggers, kept, strict=True):
        one.setLevel(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """``ZEROSKIP_PACKAGED=required``: a test of packaged models and data that is skipped has failed."""
    report = yield
    required = os.environ.get("ZEROSKIP_PACKAGED") == "required"
    if required and report.skipped and item.get_closest_marker("packaged") is not None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"{reason} (ZEROSKIP_PACKAGED=required)"
    return report


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
