"""What virtual tokens add to a trace: rows, keys, and the work of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tiny_families import BUILDERS, SMALL, build, inputs
from tiny_tuning import TASKS, save_data, save_model
from torch.utils.flop_counter import FlopCounterMode

import traces
from traces.models.prompts import virtual_tokens
from traces.models.sites import find_sites
from traces.oplist.example_inputs import decode_probe, probe_shapes, prompt_probe
from traces.oplist.ops import expand
from traces.oplist.probe import probe_ops
from traces.oplist.windows import list_ops
from traces.tuning import Training, Tuning, tune
from traces.tuning.change import Part
from traces.tuning.methods.prompt import PrefixTuning, PromptTuning, PTuning

PARTS: dict[str, Part] = {
    "prompt": PromptTuning(virtual_tokens=5),
    "prefix": PrefixTuning(virtual_tokens=5, projection=True),
    "ptuning": PTuning(virtual_tokens=5),
}
QUICK = Training(epochs=1, batch_size=16, lr=1e-2, max_length=16, max_samples=48)


def deployed(family: str, part: Part) -> Any:
    change = part.change()
    return change.merge(change.apply(build(family).requires_grad_(False), TASKS.get(family, "causal-lm"), {}).eval())


def flops(run: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("name", PARTS)
def test_macs_are_those_torch_counts(family: str, name: str) -> None:
    net = deployed(family, PARTS[name])
    front = virtual_tokens(net)
    assert front == (0 if name == "prefix" else 5)
    shapes = [(2, 7 + front), (3, 11 + front)]
    templates = probe_ops(net, [prompt_probe(net, *s) for s in shapes], shapes, find_sites(net))
    found = expand(templates, [(4, 9 + front)])
    assert 2 * sum(op.macs for op in found) == flops(lambda: net(**inputs(family, 4, 9)))
    down = next(op for op in found if op.op == "down")
    assert down.m == 4 * (9 + front)
    scores = next(op for op in found if op.op == "scores")
    assert {(scores.m, scores.n), (scores.n, scores.m)} & {(9 + front, 14)}
    elements = next(op.m for op in found if op.op == "softmax")
    assert elements == 4 * 3 * (9 + front) * 14
    if family == "bert":
        return
    templates = probe_ops(net, [decode_probe(net, *s) for s in shapes], shapes, find_sites(net))
    macs = sum(op.macs for op in expand(templates, [(4, 9 + front)]))
    assert 2 * macs == flops(decode_probe(net, 4, 9 + front))


@pytest.mark.parametrize("name", PARTS)
def test_a_window_counts_virtual_tokens_as_they_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # a prompt passes through the window like text; peft keeps a prefix in a cache that has none
    config = hf.MistralConfig(**SMALL | {"num_key_value_heads": 1, "sliding_window": 9})
    monkeypatch.setitem(BUILDERS, "windowed", lambda: hf.MistralForCausalLM(config))
    net = deployed("windowed", PARTS[name])
    front = virtual_tokens(net)
    templates = list_ops(net, decode_probe, probe_shapes(net), find_sites(net))
    for keys in (4 + front, 30 + front):
        found = expand(templates, [(2, keys)])
        assert 2 * sum(op.macs for op in found) == flops(decode_probe(net, 2, keys))
        shared = {op.shared for op in found if op.op in ("scores", "values")}
        assert shared == {3}
    assert next(op.n for op in found if op.op == "scores") == (35 if name == "prefix" else 9)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, traces.TuneResult]:
    """A language model and a classifier, each with a prompt and with a prefix."""
    folder = tmp_path_factory.mktemp("virtual")
    found = {}
    for family in ("bert", "llama"):
        task = TASKS[family]
        model, data = save_model(family, folder), save_data(task, folder)
        for name in ("prompt", "prefix"):
            plan = Tuning(name=name, module=PARTS[name], train=QUICK)
            out = folder / f"{family}-{name}"
            found[f"{family}-{name}"] = tune(model, data, plan, out, task=task, test_limit=8, progress=False)
    return found


@pytest.mark.parametrize("name", ["bert-prompt", "bert-prefix", "llama-prompt", "llama-prefix"])
def test_a_traces_rows_have_their_tokens(name: str, tuned: dict[str, traces.TuneResult], tmp_path: Path) -> None:
    result, extra = tuned[name], 5 if name.endswith("prompt") else 0
    facts = result.measurements
    new = 2 if name.startswith("llama") else 0
    trace = traces.record(
        facts["model"], result.path, facts["data"], limit=6, batch_size=3, out=tmp_path / "t.zarr", new_tokens=new,
        progress=False,
    )  # fmt: skip
    tokens = trace.tokens
    assert all(site.mask(real_only=False).shape[0] == len(tokens) == trace.rows for site in trace.sites.values())
    plain = traces.record(
        facts["model"], None, facts["data"], limit=6, batch_size=3, out=tmp_path / "p.zarr", new_tokens=new,
        task=facts["task"], progress=False,
    )  # fmt: skip
    assert trace.n_tokens == plain.n_tokens + 6 * extra
    for _, own in tokens[tokens["real"]].groupby("sequence"):
        assert np.array_equal(np.sort(own["position"]), np.arange(len(own)))
    own, base = (
        {(o.op, o.layer): o.macs for o in t.ops() if o.has_weight and o.kind == "gemm" and o.layer >= 0}
        for t in (trace, plain)
    )
    for key, macs in base.items():
        assert own[key] * plain.n_tokens == macs * trace.n_tokens


@pytest.mark.parametrize("name", ["llama-prompt", "llama-prefix"])
def test_decoding_is_the_same_for_a_sequence_alone_and_padded(
    name: str, tuned: dict[str, traces.TuneResult], tmp_path: Path
) -> None:
    result = tuned[name]
    facts = result.measurements
    found = []
    for size in (1, 6):
        trace = traces.record(
            facts["model"], result.path, facts["data"], limit=6, batch_size=size, out=tmp_path / f"{size}.zarr",
            new_tokens=2, thresholds=[0.05], progress=False,
        )  # fmt: skip
        real = trace.tokens[trace.tokens["real"]].sort_values(["sequence", "position"])
        mask = trace.sites["layers.1.down"].mask(False, "0.05").to_bool()[real.index.to_numpy()]
        found.append((real[["sequence", "position"]].to_numpy(), mask))
    assert np.array_equal(found[0][0], found[1][0])
    assert (found[0][1] != found[1][1]).mean() < 0.005  # sums in another order differ in the last bit
