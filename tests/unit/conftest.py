"""A tiny model and a tiny data set, once for all unit tests."""

from __future__ import annotations

import pytest
from tiny_models import make_data, make_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a randomly initialised two-layer BERT with a tokenizer."""
    return make_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """CSV of 240 short texts with a learnable label."""
    return make_data(tmp_path_factory.mktemp("data"))
