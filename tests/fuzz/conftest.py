"""Inputs for examples, and a line of progress for each property."""

from __future__ import annotations

import pytest
from fuzz_world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))
