"""Vectors of an independent model that was equal to an RTL simulation of the same designs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwmodels import Op, PackedMask, load_arch
from hwmodels.kernels.eie import token_cycles
from hwmodels.kernels.tensordash import TensorDashParams, count
from hwmodels.reference.eie import token
from hwmodels.reference.tensordash import group_cycles

DATA = Path(__file__).parent / "data"
CASES: dict[str, list[dict[str, Any]]] = json.loads((DATA / "cycles.json").read_text())


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    with np.load(DATA / "vectors.npz") as stored:
        return {name: stored[name] for name in stored.files}


@pytest.mark.parametrize("case", CASES["tensordash"], ids=lambda case: case["case"])
def test_tensordash_equals_rtl(case: dict[str, Any], vectors: dict[str, np.ndarray]) -> None:
    mask = np.unpackbits(vectors[case["case"]], axis=1)[:, : case["k"]].astype(bool)
    arch = load_arch("tensordash").with_(rows=case["rows"], columns=1, tiles=1)
    params = TensorDashParams(**{name: figure.value for name, figure in arch.params.items()})
    counted = count(Op("td", 0, case["rows"], case["k"], 1, PackedMask.from_bool(mask)), params, arch)
    assert counted.cycles == case["cycles"]
    assert counted.dense_cycles == case["dense"]
    assert counted.unit_busy is not None
    assert counted.unit_busy.sum() == mask.sum()
    assert group_cycles(mask, params) == case["cycles"]


@pytest.mark.parametrize("case", CASES["eie"], ids=lambda case: case["case"])
def test_eie_equals_rtl(case: dict[str, Any], vectors: dict[str, np.ndarray]) -> None:
    active = np.unpackbits(vectors[case["case"] + "_act"])[: case["k"]].astype(bool)
    entries = vectors[case["case"] + "_entries"].astype(np.uint16)
    words = PackedMask.from_bool(active[None]).words
    assert token_cycles(words, case["k"], entries, case["ring"], drain=6)[0] == case["cycles"]
    if case["k"] < 300:
        assert token(active, entries.tolist(), case["ring"], drain=6) == case["cycles"]
    broadcast = entries[np.append(active, True)]
    assert broadcast.sum() == case["busy"]
    assert (broadcast == 0).sum() == case["bubbles"]
