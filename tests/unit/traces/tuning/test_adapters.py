"""Adapters, dense and gated: where they stand, what they cost, and what a closed gate leaves untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import build, inputs
from tiny_tuning import SCORES, TASKS, measured_again, save_data, save_model
from torch.utils.flop_counter import FlopCounterMode

import traces
from traces.errors import InputError
from traces.models.sites import find_sites
from traces.oplist.ops import expand
from traces.oplist.probe import probe_ops, watch
from traces.tuning import Training, Tuning, list_methods, tune
from traces.tuning.methods.adapter import Adapter
from traces.tuning.methods.gated import Gated, gates

QUICK = Training(epochs=1, batch_size=16, lr=1e-2, max_length=16, max_samples=96)
SHAPES = ((2, 7), (3, 11))
ADAPTER = {"adapter.down", "adapter.up"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Model and data of each family."""
    folder = tmp_path_factory.mktemp("tiny")
    return {f: (save_model(f, folder), save_data(task, folder)) for f, task in TASKS.items()}


def adapted(family: str, part: Adapter, task: str = "classification") -> Any:
    """A tiny frozen model with adapters far from the identity."""
    net = part.change().apply(build(family).requires_grad_(False), task, {}).eval()
    made = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".adapter." in name and ".gate." not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=made))
    return net


def set_gates(net: Any, bias: float) -> Any:
    with torch.no_grad():
        for gate in gates(net).values():
            gate.weight.zero_()
            gate.bias.fill_(bias)
    return net


def run(net: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return net(**given).logits


def op_list(net: Any) -> list[Any]:
    def probe(batch: int, length: int) -> Any:
        ids = torch.ones((batch, length), dtype=torch.long)
        return lambda: net(input_ids=ids, attention_mask=torch.ones_like(ids))

    return probe_ops(net, [probe(*shape) for shape in SHAPES], SHAPES, find_sites(net))


@pytest.mark.slow
@pytest.mark.parametrize("family", list(TASKS))
@pytest.mark.parametrize(
    "part", [Adapter(), Adapter(placement="houlsby"), Gated()], ids=["pfeiffer", "houlsby", "gated"]
)
def test_trains_saves_and_measures_the_same_when_loaded(
    family: str, part: Adapter, places: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    model, data = places[family]
    result = tune(
        model, data, Tuning(name="a", module=part, train=QUICK), tmp_path / "a", task=TASKS[family], test_limit=12,
        progress=False,
    )  # fmt: skip
    kept = {n: result.measurements[n] for n in SCORES if n in result.measurements}
    assert measured_again(result, merge=True, limit=12) == kept


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "albert", "opt", "modernbert", "distilbert"])
def test_two_gemms_an_adapter_and_no_base_op_is_lost(family: str) -> None:
    given = inputs(family, 3, 9)
    base = {(o.op, o.layer, o.k, o.n): o.macs for o in expand(op_list(build(family)), [(3, 9)]) if o.kind == "gemm"}
    for part, behind in ((Adapter(), 1), (Adapter(placement="houlsby"), 2)):
        net = adapted(family, part)
        ops = expand(op_list(net), [(3, 9)])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(**given)
        assert 2 * sum(op.macs for op in ops) == counter.get_total_flops()
        added = [op for op in ops if op.op in ADAPTER]
        assert len(added) == 2 * 2 * behind  # two layers
        assert all((op.m, op.macs, op.has_weight) == (27, 27 * 24, True) for op in added)  # 24 // 16 = 1 inside
        rest = {(o.op, o.layer, o.k, o.n): o.macs for o in ops if o.kind == "gemm" and o.op not in ADAPTER}
        assert rest == base
        assert [s.name for s in find_sites(net)] == [s.name for s in find_sites(build(family))]


def test_an_adapter_is_the_formula() -> None:
    net = adapted("bert", Adapter(reduction=4, activation="gelu"))
    layer = net.get_submodule("bert.encoder.layer.0.output.dense")
    x = torch.randn(2, 5, 40)
    h = x @ layer.base_layer.weight.T + layer.base_layer.bias
    inner = torch.nn.functional.gelu(h @ layer.adapter.down.weight.T + layer.adapter.down.bias)
    assert inner.shape[-1] == 6
    assert torch.allclose(layer(x), h + inner @ layer.adapter.up.weight.T + layer.adapter.up.bias, atol=1e-5)
    assert sum(p.numel() for n, p in net.named_parameters() if ".adapter." in n) == 2 * (24 * 6 * 2 + 6 + 24)


def test_post_ffn_adapters_leave_the_first_layers_density_exactly_unchanged() -> None:
    given = inputs("bert", 4, 9)

    def masks(net: Any) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        for site in find_sites(net):
            net.get_submodule(site.module).register_forward_pre_hook(lambda _m, i: seen.append(i[0] > 0))
        run(net, given)
        return seen

    base, after = masks(build("bert")), masks(adapted("bert", Adapter()))
    assert torch.equal(base[0], after[0])
    assert not torch.equal(base[1], after[1])
    assert not torch.equal(base[0], masks(adapted("bert", Adapter(placement="houlsby")))[0])


@pytest.mark.parametrize(("family", "task"), [("bert", "classification"), ("llama", "causal-lm"), ("opt", "causal-lm")])
def test_a_closed_gate_is_bit_identical_to_the_base_and_runs_no_adapter(family: str, task: str) -> None:
    given = inputs(family, 3, 8)
    net = set_gates(adapted(family, Gated(), task), -1.0)
    assert torch.equal(run(net, given), run(build(family), given))
    ran = {e.module.rpartition(".adapter.")[2] for e in watch(net, lambda: net(**given)) if ".adapter." in e.module}
    assert not ran & {"down", "up"}
    dense = adapted(family, Adapter())
    assert torch.allclose(run(set_gates(net, 1.0), given), run(dense, given), atol=1e-4)


def test_only_open_tokens_take_the_adapter() -> None:
    net = adapted("bert", Gated())
    layer = net.get_submodule("bert.encoder.layer.0.output.dense").adapter
    h = torch.randn(2, 6, 24)
    with torch.no_grad():
        layer.gate.bias.zero_()
        mask = layer.gate(h)
        out, dense = layer(h), h + layer.delta(h)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    chosen = mask[..., 0] == 1
    assert torch.equal(out[~chosen], h[~chosen])
    assert torch.allclose(out[chosen], dense[chosen], atol=1e-5)


def test_usage_counts_real_tokens_and_a_sequence_is_decided_on_them() -> None:
    net = adapted("bert", Gated(feature="sequence"))
    gate = gates(net)["bert.encoder.layer.0.output.dense"]
    given = inputs("bert", 2, 6)
    given["attention_mask"][1, 3:] = 0
    seen: list[torch.Tensor] = []
    gate.register_forward_hook(lambda _m, _i, out: seen.append(out))
    alone = {n: t[1:, :3] for n, t in given.items()}
    net.train().eval()
    run(net, given)
    assert seen[0].shape == (2, 6, 1)
    assert gate.seen == 6 + 3
    assert gate.open == int(seen[0][0].sum()) + int(seen[0][1, :3].sum())
    run(net, alone)
    assert float(seen[1][0, 0]) == float(seen[0][1, 0])  # padding has no say
    net.train().eval()
    assert gate.seen == 0


@pytest.mark.parametrize(
    ("kind", "rho"), [("straight-through", 0.25), ("straight-through", 0.5), ("hard-concrete", 0.25)]
)
def test_usage_ends_within_five_points_of_the_budget(kind: Any, rho: float) -> None:
    """A fixture where the adapter helps each token a different amount: the budget goes to those it helps most."""
    torch.manual_seed(0)
    change = Gated(rho=rho, gate=kind, reduction=1, weight=1.0).change()
    net = change.apply(build("bert").requires_grad_(False), "classification", {})
    layer = net.get_submodule("bert.encoder.layer.0.output.dense").adapter.train()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.02, weight_decay=0.0)
    steps, made = 200, torch.Generator().manual_seed(1)
    for step in range(steps):
        h = torch.randn(32, 16, 24, generator=made)
        wanted = h + h.flip(-1) * h[..., :1].sigmoid()
        optimizer.zero_grad()
        loss = (layer(h) - wanted).square().mean()
        (loss + change.penalty(net, step / steps)).backward()
        optimizer.step()
    layer.eval()
    with torch.no_grad():
        h = torch.randn(64, 16, 24, generator=made)
        taken = layer.gate(h)[..., 0] == 1
    assert float(taken.float().mean()) == pytest.approx(rho, abs=0.05)
    assert h[taken][:, 0].mean() > h[~taken][:, 0].mean()


def test_the_penalty_is_the_hinge_on_mean_usage() -> None:
    part = Gated(rho=0.25, weight=4.0, anneal=0.5)
    change = part.change()
    net = change.apply(build("bert"), "classification", {}).train()
    net(**inputs("bert", 3, 8))
    mean = torch.stack([g.mean for g in gates(net).values()]).mean().item()
    assert mean > 0.5
    for progress, budget in ((0.0, 1.0), (0.25, 0.625), (0.5, 0.25), (1.0, 0.25)):
        assert change.penalty(net, progress).item() == pytest.approx(4.0 * max(0.0, mean - budget), rel=1e-5)


def test_gated_states_that_it_has_no_source_and_claims_no_saving() -> None:
    method = list_methods()["gated"]
    assert method.source.startswith("unsourced")
    assert method.evidence == "reconstructed"
    assert "cheaper" not in f"{method}"
    assert "%" not in f"{method}"
    with pytest.raises(InputError, match=r"module 'gated' with feature 'sequence' .*look ahead; use feature: token"):
        Gated(feature="sequence").change().apply(build("llama"), "causal-lm", {})
    net = build("bert")
    for layer in net.bert.encoder.layer:
        layer.attention.output = torch.nn.Identity()
    with pytest.raises(InputError, match="use placement: pfeiffer"):
        Adapter(placement="houlsby").change().apply(net, "classification", {})


def test_usage_stands_in_the_measurements(places: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    plan = Tuning(name="g", module=Gated(rho=0.5), train=QUICK)
    measured = tune(*places["bert"], plan, tmp_path / "g", progress=False).measurements
    assert len(measured["adapter_usage"]) == 2
    assert measured["usage"] == pytest.approx(sum(measured["adapter_usage"].values()) / 2)
    trace = traces.record(
        places["bert"][0], tmp_path / "g", places["bert"][1], limit=8, out=tmp_path / "g.zarr", progress=False
    )
    added = [op for op in trace.ops() if op.op in ADAPTER]
    assert len(added) == 4
    assert all(op.m == trace.n_tokens for op in added)  # as if every gate were open: nothing is saved that may not be
    assert sum(op.op == "adapter.gate" and op.n == 1 for op in trace.ops()) == 2
