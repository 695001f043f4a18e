"""RTL tests run where Verilator can be used; one build of each parameter set serves all tests."""

from __future__ import annotations

import pytest

from simkit.errors import UnavailableError
from simkit.validation.rtl.tools import verilator_version


@pytest.fixture(scope="session")
def verilator() -> str:
    """Version of Verilator, or a skip with the reason."""
    try:
        return verilator_version()
    except UnavailableError as missing:
        pytest.skip(str(missing))
