"""The memo gives what a fresh simulation gives, and counts masks only when something that was read changed."""

from __future__ import annotations

import gc
import weakref
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwmodels
from hwmodels import Arch, Counts, Op, PackedMask, load_arch, registry
from hwmodels.memo import Memo

ARCHS = ("cnvlutin", "dadiannao", "systolic_32x32")


def same(a: Counts, b: Counts) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Counts))


@st.composite
def op_and_archs(draw: st.DrawFn) -> tuple[Op, list[Arch]]:
    m, k, n = draw(st.integers(1, 60)), draw(st.integers(1, 150)), draw(st.integers(1, 40))
    density, seed = draw(st.floats(0, 1)), draw(st.integers(0, 99))
    weight = PackedMask.bernoulli(n, k, 0.5, seed) if draw(st.booleans()) else None
    output = PackedMask.bernoulli(m, n, 0.3, seed) if draw(st.booleans()) else None
    op = Op("x", 0, m, k, n, PackedMask.bernoulli(m, k, density, seed), weight, output, batch=draw(st.integers(0, m)))
    changes = st.fixed_dictionaries(
        {},
        optional={
            "memory__bandwidth": st.sampled_from(["1 MB/s", "1 GB/s"]),
            "clock": st.sampled_from(["0.5 GHz", "1 GHz"]),
            "memory__activation_buffer": st.sampled_from(["100 byte", "4 KiB"]),
            "memory__weight_buffer": st.sampled_from(["64 byte", "1 MiB"]),
            "bits__activation": st.sampled_from([4, 16]),
        },
    )
    made = [
        load_arch(name).with_(**change)
        for name, change in draw(st.lists(st.tuples(st.sampled_from(ARCHS), changes), min_size=2, max_size=5))
    ]
    return op, made


@given(op_and_archs())
@settings(max_examples=60, deadline=None)
def test_memo_equals_simulate(case: tuple[Op, list[Arch]]) -> None:
    op, archs = case
    memo = Memo()
    for arch in [*archs, *archs]:
        assert same(memo.simulate(op, arch), hwmodels.simulate(op, arch))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arch bits at each real count of a kernel that reads them when ``lanes`` is even."""
    calls: list[str] = []
    cnvlutin = registry.kernels()["cnvlutin"]

    def count(op: Op, params: Any, arch: Arch) -> Any:
        calls.append(arch.name)
        if params.lanes % 2 == 0:
            assert int(arch.bits["activation"].value) > 0
        return cnvlutin.count(op, params, arch)

    monkeypatch.setitem(registry.kernels(), "cnvlutin", replace(cnvlutin, count=count))
    return calls


@pytest.fixture
def op() -> Op:
    return Op("x", 0, 30, 100, 20, PackedMask.bernoulli(30, 100, 0.3, 1))


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"memory__bandwidth": "3 GB/s"}, 1),
        ({"clock": "1 GHz"}, 1),
        ({"node": "45 nm"}, 1),
        ({"lanes": 8}, 2),
        ({"bits__activation": 8}, 2),
    ],
)
def test_only_what_was_read_counts_again(counted: list[str], op: Op, change: dict[str, Any], counts: int) -> None:
    memo, base = Memo(), load_arch("cnvlutin")
    for arch in (base, base.with_(**change), base):
        memo.simulate(op, arch)
    assert len(counted) == counts


def test_unread_bits_do_not_count_again(counted: list[str], op: Op) -> None:
    memo, base = Memo(), load_arch("cnvlutin").with_(lanes=5)
    memo.simulate(op, base)
    memo.simulate(op, base.with_(bits__activation=8))
    assert len(counted) == 1


def test_counts_go_with_their_op(op: Op) -> None:
    memo = Memo()
    own = replace(op, output=PackedMask.ones(30, 20))
    memo.simulate(own, load_arch("systolic_32x32"))
    memo.simulate(own, load_arch("cnvlutin"))
    alive = weakref.ref(own)
    del own
    gc.collect()
    assert alive() is None
    assert not memo._counted
    assert not memo._moved


def test_entries_are_bounded(op: Op) -> None:
    memo = Memo()
    for lanes in range(1, 101):
        memo.simulate(op, load_arch("cnvlutin").with_(lanes=lanes))
    assert sum(len(known) for store in memo._counted.values() for known in store.values()) <= 64
