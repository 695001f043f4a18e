"""Mixtures of experts: choices, each expert's masks, and operators whose rows are the tokens routed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tiny_families import SMALL
from tiny_models import write_tokenizer
from torch.utils.flop_counter import FlopCounterMode

import simkit as sk
import traces
from traces.data.batches import collate, encode, sorted_order
from traces.errors import InputError
from traces.models.experts import expert_sites, recorded_experts
from traces.models.load import load_model, load_tokenizer
from traces.transform.edit import slice_trace

COMMON: dict[str, Any] = SMALL | {"num_key_value_heads": 1, "hidden_act": "relu", "num_experts_per_tok": 2}
BUILDERS: dict[str, Any] = {
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**COMMON, num_local_experts=4)),
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(
            **COMMON,
            num_experts=5,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=20,
            mlp_only_layers=[1],
        )
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**COMMON, num_experts=4, moe_intermediate_size=16, head_dim=8)
    ),
    "olmoe": lambda: hf.OlmoeForCausalLM(hf.OlmoeConfig(**COMMON, num_experts=4)),
}


@pytest.fixture(scope="module", params=BUILDERS)
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mixed") / str(request.param)
    BUILDERS[request.param]().eval().save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="module")
def recorded(mixed: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> traces.Trace:
    out = tmp_path_factory.mktemp("recorded") / "t.zarr"
    given = {"data": tiny_data, "limit": 9, "batch_size": 4, "thresholds": [1e-3], "progress": False}
    return traces.record(mixed, out=out, **given)


def batches(mixed: str, tiny_data: str) -> list[Any]:
    tokens = encode(load_tokenizer(mixed), traces.load_data(tiny_data).test.head(9).texts, 64)
    return [collate(tokens, rows, 0) for rows in sorted_order([len(t) for t in tokens], 4)]


class DownProjections(torch.overrides.TorchFunctionMode):
    """What each expert's down-projection is given, seen from outside: by which weight a linear layer is called with."""

    def __init__(self, experts: dict[str, torch.nn.Module]) -> None:
        super().__init__()
        self.weights = {
            weight.data_ptr(): (name, e)
            for name, module in experts.items()
            for e, weight in enumerate(module.down_proj)
        }
        self.seen: dict[tuple[str, int], list[torch.Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear:
            key = self.weights.get(args[1].data_ptr())
            if key is not None and args[1].shape[1] == args[0].shape[1]:
                self.seen.setdefault(key, []).append(args[0].detach().clone())
        return func(*args, **(kwargs or {}))


def test_masks_are_those_of_the_library_s_own_loop(recorded: traces.Trace, mixed: str, tiny_data: str) -> None:
    model = load_model(mixed, "causal-lm", experts_implementation="eager")
    sites = {s.name: s for s in expert_sites(model) if s.experts}
    owners = {name: model.get_submodule(s.module) for name, s in sites.items()}
    with torch.inference_mode(), DownProjections(owners) as watch:
        for batch in batches(mixed, tiny_data):
            model(**batch.inputs)
    for name, site in sites.items():
        for expert in range(site.experts):
            held = recorded.sites[f"{name}.{expert}.down"]
            # the library goes through an expert's rows by rank, the trace by token: compare what is in them
            rows = torch.cat([*watch.seen.get((name, expert), []), torch.zeros(0, site.k)]).numpy()
            for variant, wanted in ((None, rows != 0), ("0.001", np.abs(rows) > 1e-3)):
                found = held.mask(False, variant).to_bool()
                assert found.shape == wanted.shape
                assert sorted(map(bytes, found)) == sorted(map(bytes, wanted))
            assert held.mask(False).popcount() == (rows != 0).sum()


def test_the_recording_computes_what_the_library_does(mixed: str, tiny_data: str) -> None:
    model = load_model(mixed, "causal-lm", experts_implementation="eager")
    batch = batches(mixed, tiny_data)[0]
    with torch.inference_mode():
        plain = model(**batch.inputs).logits
        with recorded_experts(model, expert_sites(model)):
            ours = model(**batch.inputs).logits
    assert torch.equal(plain, ours)
    assert model.config._experts_implementation == "eager"


def test_choices_are_the_router_s(recorded: traces.Trace, mixed: str, tiny_data: str) -> None:
    model = load_model(mixed, "causal-lm")
    (site, *_) = [s for s in expert_sites(model) if s.experts]
    seen: list[torch.Tensor] = []
    model.get_submodule(site.module).register_forward_pre_hook(lambda _m, given: seen.append(given[1].clone()))
    with torch.inference_mode():
        for batch in batches(mixed, tiny_data):
            model(**batch.inputs)
    choice = recorded.choice(site.name)
    assert np.array_equal(choice, torch.cat(seen).numpy())
    for expert in range(site.experts):
        held = recorded.sites[f"{site.name}.{expert}.down"]
        routed = (choice == expert).any(axis=1)
        assert np.array_equal(held.rows(real_only=False), np.flatnonzero(routed))
        assert held.mask().shape == (int((routed & recorded.real).sum()), site.k)
    with pytest.raises(InputError, match="no experts"):
        recorded.choice("layers.9.experts")


def test_macs_equal_the_flop_counter(recorded: traces.Trace, mixed: str, tiny_data: str) -> None:
    model = load_model(mixed, "causal-lm", attn_implementation="eager", experts_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for batch in batches(mixed, tiny_data):
            model(**batch.inputs)
    assert sum(op.macs for op in recorded.ops(real_only=False)) == counter.get_total_flops() // 2
    downs = [op for op in recorded.ops() if op.input_site and ".experts." in op.input_site]
    for op in downs:
        assert op.m == recorded.sites[op.input_site].mask().shape[0]
    routed = sum(op.m for op in downs if op.layer == 0)
    assert routed == 2 * recorded.n_tokens


def test_weight_bytes_are_the_experts_own(recorded: traces.Trace, mixed: str) -> None:
    model = load_model(mixed, "causal-lm")
    (site, *_) = [s for s in expert_sites(model) if s.experts]
    down = model.get_submodule(site.module).down_proj
    for op in recorded.ops():
        if op.input_site and op.input_site.startswith(f"{site.name}."):
            assert op.weight_bytes == down[0].numel() * 4


def test_shared_experts_and_dense_layers_are_sites_of_their_own(recorded: traces.Trace, mixed: str) -> None:
    both = mixed.endswith("qwen2_moe")  # the others have neither
    wide = {name: site.k for name, site in recorded.sites.items() if ".experts." not in name}
    assert wide == (
        {"layers.0.shared.down": 20, "layers.0.shared.gate": 20, "layers.1.down": 40, "layers.1.gate": 40}
        if both
        else {}
    )
    assert ("layers.1.experts.0.down" in recorded.sites) != both


def test_replay_slice_and_verify(recorded: traces.Trace, tmp_path: Path) -> None:
    recorded.verify()
    result = sk.replay(recorded, "cnvlutin", ops=["down"])
    assert result.ops["effectual_macs"].sum() == sum(
        s.mask().popcount() * s.n for s in recorded.sites.values() if s.op == "down"
    )
    part = slice_trace(recorded, tmp_path / "p.zarr", sequences=4)
    part.verify()
    kept = recorded.tokens["sequence"].isin(np.unique(part.tokens["sequence"])).to_numpy()
    (name, *_) = [n for n in recorded.sites if ".experts." in n]
    rows = recorded.sites[name].rows(real_only=False)
    whole = recorded.sites[name].mask(False).to_bool()[kept[rows]]
    assert np.array_equal(part.sites[name].mask(False).to_bool(), whole)


@pytest.fixture(scope="module")
def pruned(mixed: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[traces.Trace, Any]:
    """A recording with weights, block inputs and histograms of a model some of whose weights are zero."""
    folder = tmp_path_factory.mktemp("pruned")
    model = load_model(mixed, "causal-lm")
    for site in expert_sites(model):
        if site.experts:
            down = model.get_submodule(site.module).down_proj
            down.data[:, :, ::3] = 0
            down.data[1] = 0
    model.save_pretrained(folder / "m")
    write_tokenizer(folder / "m")
    given = {"data": tiny_data, "limit": 9, "batch_size": 4, "progress": False}
    return traces.record(
        str(folder / "m"), out=folder / "t.zarr", weights=True, mlp_inputs=True, histogram=True, **given
    ), model


@pytest.mark.slow
def test_experts_keep_the_masks_of_their_own_weights(pruned: tuple[traces.Trace, Any], tmp_path: Path) -> None:
    trace, model = pruned
    part = slice_trace(trace, tmp_path / "p.zarr", sequences=4)
    for site in (site for site in expert_sites(model) if site.experts):
        down = model.get_submodule(site.module).down_proj.detach().numpy()
        for expert in range(site.experts):
            for held in (trace, part):
                mask = held.sites[f"{site.name}.{expert}.down"].weight_mask()
                assert mask is not None
                assert mask.shape == (site.n, site.k)
                assert np.array_equal(mask.to_bool(), down[expert] != 0)
    trace.verify()
    kept = sk.replay(trace, "sparten", ops=["down"]).ops
    dense = sk.replay(trace, "sparten", ops=["down"], weights="dense").ops
    macs = [ops.loc[ops["layer"] == 0, "effectual_macs"].sum() for ops in (kept, dense)]
    assert macs[0] < 0.7 * macs[1]


def test_what_enters_a_mixture_is_recorded_once_for_each_token(
    pruned: tuple[traces.Trace, Any], tiny_data: str
) -> None:
    trace, model = pruned
    sites = [site for site in expert_sites(model) if site.experts]
    seen: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}
    for site in sites:
        model.get_submodule(site.module).register_forward_pre_hook(
            lambda _m, given, name=site.name: seen[name].append(given[0].reshape(-1, given[0].shape[-1]) != 0)
        )
    with torch.inference_mode():
        for batch in batches(model.name_or_path, tiny_data):
            model(**batch.inputs)
    for site in sites:
        held = trace.sites[f"{site.name}.up"]
        assert np.array_equal(held.mask(False).to_bool(), torch.cat(seen[site.name]).numpy())
        counted = sum(trace.attrs["histograms"][site.name])  # of the down-projections' inputs alone
        assert counted == sum(trace.sites[f"{site.name}.{e}.down"].mask(False).popcount() for e in range(site.experts))
