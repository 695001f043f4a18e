"""ADA-DEFT: gates on MLP blocks, and blocks that are gone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES, build, inputs
from torch.utils.flop_counter import FlopCounterMode

import traces
from traces.errors import InputError
from traces.models.sites import find_sites
from traces.oplist.ops import expand
from traces.oplist.probe import probe_ops
from traces.tuning import Activation, BlockGates, DensityLoss, LoRA, Training, Tuning, load_tuned, tune

SHAPES = ((2, 7), (3, 11))
GATED = [f for f in FAMILIES if f != "albert"]
MLP = {"up", "gate", "gate_up", "down"}


def logits(net: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return net(**given).logits


def changed(family: str, gates: list[float], module: LoRA | None = None) -> tuple[Any, list[Any]]:
    """A tiny model with given gates under a LoRA whose product is not zero."""
    net = build(family)
    tuning = Tuning(name="x", module=module or LoRA(r=2), blocks=BlockGates())
    changes = tuning.changes()
    for change in changes:
        net = change.apply(net, "image-classification", {})  # for peft: whatever the forward's arguments are
    made = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=made) * 0.1)
        wanted = torch.logit(torch.tensor(gates)) - net.block_gates.start
        net.block_gates.u.copy_(wanted / net.block_gates.rate)
    return net.eval(), changes


def merged(net: Any, changes: list[Any]) -> Any:
    for change in reversed(changes):
        net = change.merge(net)
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("family", GATED)
def test_a_dropped_block_gives_no_ops_and_no_weights_and_the_rest_is_the_gated_model(family: str) -> None:
    plain = build(family)
    blocks = len(find_sites(plain))
    net, changes = changed(family, [0.05] + [0.7] * (blocks - 1))
    given = inputs(family, 2, 6)
    gated = logits(net, given)
    net = merged(net, changes)
    torch.testing.assert_close(logits(net, given), gated, rtol=1e-4, atol=1e-5)

    def ops(model: Any) -> list[Any]:
        runs = [lambda shape=shape: model(**inputs(family, *shape)) for shape in SHAPES]
        return expand(probe_ops(model, runs, SHAPES, find_sites(model)), [(5, 13)])

    before, after = ops(plain), ops(net)
    first = [op for op in before if op.layer == 0 and op.op in MLP]
    assert {op.op for op in first} >= {"down"}
    assert sum(o.macs for o in before) - sum(o.macs for o in after) == sum(o.macs for o in first)
    assert not [op for op in after if op.layer == 0 and op.op in MLP]
    # attention of that layer, and every layer behind it, keep their numbers
    assert {(o.layer, o.op) for o in before if o.kind == "gemm"} - {(o.layer, o.op) for o in first} == {
        (o.layer, o.op) for o in after if o.kind == "gemm"
    }
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(**inputs(family, 5, 13))
    assert sum(o.macs for o in after) == counter.get_total_flops() // 2
    lost = sum(o.weight_bytes for o in before) - sum(o.weight_bytes for o in after)
    assert lost >= sum(o.weight_bytes for o in first)
    assert sum(o.weight_bytes for o in after) == sum(p.numel() * p.element_size() for p in net.parameters())
    assert lost - sum(o.weight_bytes for o in first) < 400  # the norm and the scale that serve the block alone
    vectors = {o.op for o in before if o.kind == "vector" and o.layer == 0}
    assert ("activation" in vectors) <= ("activation" not in {o.op for o in after if o.layer == 0})


def test_training_gates_multiply_the_blocks_output_and_evaluation_closes_them() -> None:
    net, _ = changed("bert", [0.05, 0.5])
    down = find_sites(net)[0].module
    seen: list[torch.Tensor] = []
    net.get_submodule(down).register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
    plain = copy.deepcopy(net.get_submodule(down))
    plain._forward_hooks.clear()
    given: list[torch.Tensor] = []
    net.get_submodule(down).register_forward_pre_hook(lambda _m, i: given.append(i[0].detach()))
    logits(net.train(), inputs("bert", 2, 5))
    torch.testing.assert_close(seen[0], 0.05 * plain(given[0]), rtol=1e-4, atol=1e-6)
    logits(net.eval(), inputs("bert", 2, 5))
    assert torch.count_nonzero(seen[1]) == 0


def test_the_lowest_k_are_dropped_and_one_block_always_stays() -> None:
    from traces.tuning.layers.blocks import BlockGates as Gates

    gates = Gates(3, start=3.0, rate=1.0, threshold=0.1, drop=2)
    with torch.no_grad():
        gates.u.copy_(torch.tensor([0.0, -1.0, 1.0]))
    assert gates.kept().tolist() == [False, False, True]
    gates.drop, gates.threshold = None, 0.1
    assert gates.kept().tolist() == [True, True, True]
    with torch.no_grad():
        gates.u.fill_(-9)
    assert gates.kept().tolist().count(True) == 1


def test_models_that_cannot_drop_blocks_are_refused() -> None:
    with pytest.raises(InputError, match=r"'albert' model cannot drop MLP blocks \(its layers share"):
        BlockGates().change().apply(build("albert"), "classification", {})
    with pytest.raises(InputError, match=r"blocks\.drop is 2, the model has 2 MLP blocks"):
        BlockGates(drop=2).change().apply(build("bert"), "classification", {})


@pytest.mark.slow
def test_tuned_dropped_recorded_replayable(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    quick = Training(epochs=4, batch_size=16, lr=5e-3, max_length=16)
    plan = Tuning(
        name="ada",
        method="ada_density",
        module=LoRA(r=2),
        activation=Activation(type="relu"),
        density=DensityLoss(weight=0.01, surrogate="tanh", beta=2),
        blocks=BlockGates(mu=0.05, drop=1),
        train=quick,
    )
    result = tune(tiny_model, tiny_data, plan, tmp_path / "ada", progress=False)
    facts = result.measurements
    assert len(facts["blocks_dropped"]) == 1
    assert len(facts["density_per_layer"]) == 1
    assert all(gate < 0.95 for gate in facts["block_gates"])
    whole = plan.model_copy(update={"name": "whole", "blocks": BlockGates(mu=0.05, threshold=0.0)})
    kept = tune(tiny_model, tiny_data, whole, tmp_path / "whole", progress=False)
    assert kept.measurements["block_gates"] == facts["block_gates"]  # what inference drops does not alter training
    assert abs(kept.accuracy - result.accuracy) <= 0.01 + 1e-9
    net, _ = load_tuned(result.path)
    assert not hasattr(net, "block_gates")
    full, part = (
        traces.record(tiny_model, adapter=r.path, data=tiny_data, limit=8, out=tmp_path / f"{i}.zarr", progress=False)
        for i, r in enumerate((kept, result))
    )
    assert list(part.sites) == [name for name in full.sites if name not in facts["blocks_dropped"]]
    layer = full.sites[facts["blocks_dropped"][0]].layer
    block = [op for op in full.ops() if op.layer == layer and op.op in MLP]
    assert sum(o.macs for o in full.ops()) - sum(o.macs for o in part.ops()) == sum(o.macs for o in block)
    lost = sum(o.weight_bytes for o in full.ops()) - sum(o.weight_bytes for o in part.ops())
    assert lost == sum(o.weight_bytes for o in block)
