"""A trace made of plain masks, so that these tests need no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import traces


@pytest.fixture(scope="session")
def plain_trace_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    rng = np.random.default_rng(7)
    masks = {
        "first": rng.random((40, 96)) < 0.3,
        "first_weight": rng.random((24, 96)) < 0.6,
        "second": rng.random((40, 130)) < 0.1,
        "second_weight": rng.random((50, 130)) < 0.5,
    }
    np.savez(folder / "masks.npz", **masks)
    out = folder / "plain.zarr"
    traces.import_masks(folder / "masks.npz", out)
    return out
