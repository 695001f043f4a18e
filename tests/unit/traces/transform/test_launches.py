"""Recorded tokens regrouped into the launches of batched and of speculative decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_families import build
from tiny_models import write_tokenizer

import simkit as sk
import traces
from simkit.engine.workload import Workload
from traces.errors import InputError
from traces.transform.launches import grouped_masks, groups, launches
from traces.transform.statistics import union_density

NEW, SEQUENCES = 5, 7


@pytest.fixture(scope="module")
def decoded(tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> traces.Trace:
    folder = tmp_path_factory.mktemp("decoder")
    build("opt").save_pretrained(folder / "opt")
    write_tokenizer(folder / "opt")
    given = {"data": tiny_data, "limit": SEQUENCES, "batch_size": 3, "new_tokens": NEW, "progress": False}
    return traces.record(str(folder / "opt"), out=folder / "t.zarr", **given)


@pytest.mark.parametrize(("batch", "speculative"), [(1, 1), (1, 4), (3, 1), (4, 2), (100, 100)])
def test_a_launch_has_so_many_sequences_and_consecutive_tokens(
    decoded: traces.Trace, batch: int, speculative: int
) -> None:
    numbers = launches(decoded, batch, speculative)
    decode = (decoded.tokens["phase"] == "decode").to_numpy()
    assert np.array_equal(numbers >= 0, decode)
    seen = 0
    for number in np.unique(numbers[decode]):
        rows = decoded.tokens[numbers == number]
        assert rows["sequence"].nunique() <= batch
        steps = []
        for _, mine in rows.groupby("sequence"):
            positions = np.sort(mine["position"].to_numpy())
            assert len(positions) <= speculative
            assert (np.diff(positions) == 1).all()
            steps.append(len(positions))
        assert len(set(steps)) == 1  # every sequence decodes as many tokens here
        seen += len(rows)
    assert seen == SEQUENCES * NEW
    wanted = -(-SEQUENCES // batch) * -(-NEW // speculative)
    assert len(np.unique(numbers[decode])) == wanted


def test_groups_hold_every_row_once_launch_after_launch(decoded: traces.Trace) -> None:
    numbers = launches(decoded, 2, 2)
    mine = numbers[numbers >= 0]
    found = groups(mine)
    assert sorted(np.concatenate([g.rows for g in found]).tolist()) == list(range(len(mine)))
    for group in found:
        of = mine[group.rows].reshape(-1, group.size)
        assert (of == of[:, :1]).all()
    assert [g.size for g in found] == [1, 2, 4]


def test_unions_are_those_of_the_launches(decoded: traces.Trace) -> None:
    numbers = launches(decoded, 3, 2)
    site = decoded.sites["layers.1.down"]
    dense = site.mask(real_only=False).to_bool()
    for size, mask in grouped_masks(site, numbers):
        wanted = [dense[numbers == n].any(axis=0).mean() for n in np.unique(numbers[numbers >= 0])
                  if (numbers == n).sum() == size]  # fmt: skip
        assert union_density(mask, size) == pytest.approx(np.mean(wanted))
        assert mask.popcount() == sum(dense[numbers == n].sum() for n in np.unique(numbers[numbers >= 0])
                                      if (numbers == n).sum() == size)  # fmt: skip


def test_regrouping_changes_launches_and_no_work(decoded: traces.Trace) -> None:
    plain, regrouped = Workload(decoded), Workload(decoded, batch=3, speculative=2)
    assert sum(op.macs for op in regrouped.items) == sum(op.macs for op in plain.items)
    assert sum(op.effectual_macs for op in regrouped.items) == sum(op.effectual_macs for op in plain.items)
    prompts = int(((decoded.tokens["phase"] == "prefill") & decoded.tokens["real"]).sum())
    first, *rest = [op for op in regrouped.items if op.name == "down" and op.layer == 0]
    assert first.m == prompts
    # 3, 3 and 1 sequences; 2, 2 and 1 tokens
    assert [(op.batch, op.m) for op in rest] == [(1, 1), (2, 4), (3, 6), (6, 24)]


def test_replay_reads_weights_less_often_in_larger_launches(decoded: traces.Trace) -> None:
    fetched = {}
    for batch, speculative in ((1, 1), (1, 4), (4, 4)):
        found = sk.replay(decoded, "systolic_32x32", ops=["down"], batch=batch, speculative=speculative)
        fetched[batch, speculative] = int(found.ops["dram_bytes"].sum())
    assert fetched[1, 1] > fetched[1, 4] > fetched[4, 4]
    runs = {
        run
        for speculative in (None, 1, 2)
        for run in sk.replay(decoded, "systolic_32x32", ops=["down"], batch=2, speculative=speculative).meta["runs"]
    }
    assert len(runs) == 3


def test_prompts_alone_are_taken_as_if_decoded(small_trace_path: Path) -> None:
    real = traces.open_trace(small_trace_path)
    numbers = launches(real, 2, 3)
    assert np.array_equal(numbers >= 0, real.real)
    work = Workload(real, ["down"], batch=2, speculative=3)
    assert sum(op.m for op in work.items) == 6 * real.n_tokens
    assert {op.batch for op in work.items} <= set(range(1, 7))


def test_impossible_launches(decoded: traces.Trace) -> None:
    with pytest.raises(InputError, match="speculative = 0"):
        launches(decoded, 1, 0)
    with pytest.raises(ValueError, match="speculative = -1"):
        sk.replay(decoded, "systolic_32x32", speculative=-1)
    with pytest.raises(ValueError, match="batch = 0"):
        sk.replay(decoded, "systolic_32x32", batch=0, speculative=2)
