"""An encoder with a decoder decoding token by token: same masks as without a cache, ops equal to the FLOP counter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from test_families import save, write_data
from torch.utils.flop_counter import FlopCounterMode

import traces
from traces.data.batches import sorted_order
from traces.data.inputs import prepare
from traces.data.items import Inputs
from traces.models.load import load_model
from traces.models.sites import find_sites
from traces.recording.passes import run_batch

LIMIT, BATCH, NEW = 5, 3, 4


class Recorded(NamedTuple):
    """A trace, the model's folder, and what it was given."""

    trace: traces.Trace
    model: str
    inputs: Inputs
    given: dict[str, Any]


@pytest.fixture(scope="module", params=["t5-gated", "bart", "whisper"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    family = str(request.param)
    folder = tmp_path_factory.mktemp(f"decoded-{family}")
    model = save(family, folder)
    data, column = write_data(family, folder)
    given = {"data": data, "text": column, "limit": LIMIT, "batch_size": BATCH, "max_length": 9, "new_tokens": NEW}
    given |= {"thresholds": [1e-3], "progress": False}
    trace = traces.record(model, out=folder / "t.zarr", **given)
    split = traces.load_data(data, text=column, task="features").test.head(LIMIT)
    return Recorded(trace, model, prepare(model, "features", split, 9), given)


@pytest.mark.slow
def test_decoding_with_a_cache_sees_what_whole_passes_see(recorded: Recorded) -> None:
    model = load_model(recorded.model, "seq2seq")
    seen: dict[str, torch.Tensor] = {}
    for site in find_sites(model):
        model.get_submodule(site.module).register_forward_pre_hook(
            lambda _m, given, name=site.name: seen.__setitem__(name, given[0].detach())
        )
    rows = recorded.trace.tokens[recorded.trace.tokens["real"]]
    for sequence in range(LIMIT):
        given = dict(recorded.inputs.batch([sequence]).inputs)
        with torch.no_grad():
            for _ in range(NEW):
                said = given["decoder_input_ids"]
                chosen = model(**given, use_cache=False).logits[:, -1:].argmax(-1)
                given["decoder_input_ids"] = torch.cat([said, chosen], dim=1)
            model(**given, use_cache=False)
        mine = rows[rows["sequence"] == sequence]
        for name, values in seen.items():
            site = recorded.trace.sites[name]
            of_stack = (mine["phase"] == "encode") == (site.meta.stack == "encoder")
            here = mine[of_stack].sort_values("position")
            order = np.searchsorted(site.rows(), here.index)
            for variant, wanted in ((None, values != 0), ("0.001", values.abs() > 1e-3)):
                got = site.mask(True, variant).to_bool()[order]
                want = wanted.reshape(-1, site.k).numpy()
                assert got.shape == want.shape
                assert (got != want).mean() < 2e-3  # sums in another order differ in the last bit


def test_phases_are_told_apart(recorded: Recorded) -> None:
    trace = recorded.trace
    decode = trace.tokens[trace.tokens["phase"] == "decode"]
    for _, rows in decode.groupby("sequence"):
        assert rows["position"].tolist() == [1, 2, 3, 4]  # after the start token
    assert (trace.tokens["phase"] == "prefill").sum() == LIMIT
    for site in trace.sites.values():
        encoder = site.meta.stack == "encoder"
        assert site.mask(phase="decode").shape[0] == (0 if encoder else LIMIT * NEW)
        assert site.mask().shape[0] == (sum(recorded.inputs.lengths) if encoder else LIMIT * (1 + NEW))
    trace.verify()


def test_macs_of_both_phases_equal_the_flop_counter(recorded: Recorded) -> None:
    model = load_model(recorded.model, "seq2seq", attn_implementation="eager")
    macs = []
    for index, rows in enumerate(sorted_order(recorded.inputs.lengths, BATCH)):
        with torch.no_grad():
            steps = run_batch(model, recorded.inputs.batch(rows), index, NEW)
            for _ in range(1 + NEW):
                with FlopCounterMode(display=False) as counter:
                    next(steps)
                macs.append(counter.get_total_flops() // 2)
    prompts = sum(macs[:: 1 + NEW])
    trace = recorded.trace
    assert sum(op.macs for op in trace.ops(real_only=False, phase="prefill")) == prompts
    assert sum(op.macs for op in trace.ops(real_only=False, phase="decode")) == sum(macs) - prompts
    fed = [op for op in trace.ops(phase="decode") if op.input_site]
    assert {op.input_site for op in fed} == {
        n for n, s in trace.sites.items() if n.startswith("decoder") and s.op == "down"
    }
    assert all(op.m == LIMIT * NEW for op in fed)


def test_a_stopped_recording_goes_on_to_the_same_bits(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traces.recording import recorder

    def stopping(*arguments: Any) -> Any:
        if arguments[2] == 1:
            raise KeyboardInterrupt
        return run_batch(*arguments)

    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "run_batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            traces.record(recorded.model, out=tmp_path / "t.zarr", **recorded.given)
    assert 0 < traces.open_trace(tmp_path / "t.zarr").rows < recorded.trace.rows
    assert traces.record(recorded.model, out=tmp_path / "t.zarr", **recorded.given).hash == recorded.trace.hash
