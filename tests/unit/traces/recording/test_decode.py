"""Decoding with a KV cache: same masks as without, ops equal to the FLOP counter, phases told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import build
from tiny_models import write_tokenizer
from torch.utils.flop_counter import FlopCounterMode

import traces
from traces.data.batches import collate, encode, sorted_order
from traces.errors import InputError
from traces.models.load import load_model, load_tokenizer
from traces.models.sites import find_sites
from traces.recording.passes import run_batch

NEW = 3


@pytest.fixture(scope="module", params=["opt", "gpt2", "llama"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("decoders") / str(request.param)
    build(request.param).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="module")
def recorded(decoder: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> traces.Trace:
    out = tmp_path_factory.mktemp("decoded") / "t.zarr"
    given = {"data": tiny_data, "limit": 7, "batch_size": 3, "new_tokens": NEW, "thresholds": [1e-3], "progress": False}
    return traces.record(decoder, out=out, **given)


def passes(decoder: str, tiny_data: str) -> list[int]:
    """MACs of every forward pass, by torch's FLOP counter."""
    model = load_model(decoder, "causal-lm", attn_implementation="eager")
    split = traces.load_data(tiny_data).test.head(7)
    tokens = encode(load_tokenizer(decoder), split.texts, 64)
    macs = []
    for rows in sorted_order([len(t) for t in tokens], 3):
        with torch.no_grad():
            steps = run_batch(model, collate(tokens, rows, 0, "left"), 0, NEW)
            for _ in range(1 + NEW):
                with FlopCounterMode(display=False) as counter:
                    next(steps)
                macs.append(counter.get_total_flops() // 2)
    return macs


def test_macs_of_both_phases_equal_the_flop_counter(recorded: traces.Trace, decoder: str, tiny_data: str) -> None:
    macs = passes(decoder, tiny_data)
    prompts = sum(macs[:: 1 + NEW])
    assert sum(op.macs for op in recorded.ops(real_only=False, phase="prefill")) == prompts
    assert sum(op.macs for op in recorded.ops(real_only=False, phase="decode")) == sum(macs) - prompts
    assert sum(op.macs for op in recorded.ops(real_only=False)) == sum(macs)


def test_phases_are_told_apart(recorded: traces.Trace) -> None:
    tokens = recorded.tokens
    decode = tokens[tokens["phase"] == "decode"]
    assert len(decode) == 7 * NEW
    lengths = tokens[(tokens["phase"] == "prefill") & tokens["real"]].groupby("sequence").size()
    for sequence, rows in decode.groupby("sequence"):
        assert rows["position"].tolist() == [lengths[sequence] + i for i in range(NEW)]
    site = recorded.sites["layers.0.down"]
    prompt, generated = (site.mask(phase=phase) for phase in ("prefill", "decode"))
    assert generated.shape[0] == 7 * NEW
    assert prompt.popcount() + generated.popcount() == site.mask().popcount()
    (down,) = [op for op in recorded.ops() if op.input_site == site.name]
    assert down.m == recorded.n_tokens == site.mask().shape[0]
    with pytest.raises(InputError, match="did you mean 'decode'"):
        site.mask(phase="decod")


def test_cached_decoding_sees_what_a_whole_pass_sees(recorded: traces.Trace, decoder: str, tiny_data: str) -> None:
    model = load_model(decoder, "causal-lm")
    tokens = encode(load_tokenizer(decoder), traces.load_data(tiny_data).test.head(7).texts, 64)
    seen: dict[str, torch.Tensor] = {}
    for site in find_sites(model):
        model.get_submodule(site.module).register_forward_pre_hook(
            lambda _m, given, name=site.name: seen.__setitem__(name, given[0].detach())
        )
    rows = recorded.tokens[recorded.tokens["real"]]
    for sequence, ids in enumerate(tokens):
        current = torch.tensor([ids])
        with torch.no_grad():
            for _ in range(NEW):
                current = torch.cat([current, model(input_ids=current).logits[:, -1:].argmax(-1)], dim=1)
            model(input_ids=current)
        here = rows[rows["sequence"] == sequence].sort_values("position")
        for name, site in recorded.sites.items():
            if name in seen:
                values = seen[name].reshape(-1, site.k)
                for variant, wanted in ((None, values != 0), ("0.001", values.abs() > 1e-3)):
                    got = site.mask(False, variant).to_bool()[here.index]
                    assert (got != wanted.numpy()).mean() < 2e-3  # sums in another order differ in the last bit


def test_encoders_do_not_decode(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a causal language model or task seq2seq"):
        traces.record(tiny_model, data=tiny_data, limit=2, new_tokens=2, out=tmp_path / "t.zarr")
    with pytest.raises(InputError, match="must not be negative"):
        traces.record(tiny_model, data=tiny_data, limit=2, new_tokens=-1, out=tmp_path / "t.zarr")


def test_hash_covers_the_phase(recorded: traces.Trace) -> None:
    recorded.verify()
    assert np.unique(recorded.tokens["batch"]).tolist() == list(range(3 * (1 + NEW)))
