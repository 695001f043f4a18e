"""Time, energy and memory of a training step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import simkit as sk
import traces
from simkit.cli import app
from simkit.engine.training_cost import PASSES, pass_of
from traces.errors import InputError
from traces.models.sites import find_sites
from traces.training_step.ops import example, loss_of
from traces.tuning import Activation, FullTuning, LoRA, NoModule, Training, Tuning
from traces.tuning.result import build_model

RELU = Activation(type="relu")


@pytest.fixture(scope="module")
def relu(tiny_model: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> traces.TuneResult:
    plan = Tuning(name="relu", module=FullTuning(), activation=RELU, train=Training(max_samples=32, max_length=16))
    return traces.tune(tiny_model, tiny_data, plan, tmp_path_factory.mktemp("cost") / "relu", progress=False)


def test_a_step_is_priced_like_an_inference(tiny_model: str) -> None:
    found = {
        name: sk.tuning_cost(
            tiny_model, Tuning(name=name, module=module), ["cnvlutin", "h100_sxm"], batch=4, length=10, threads=1
        )
        for name, module in {"none": NoModule(), "lora": LoRA(r=2), "full": FullTuning()}.items()
    }
    macs = {name: cost.macs for name, cost in found.items()}
    assert macs["none"]["grad_weight"] < macs["lora"]["grad_weight"] < macs["full"]["grad_weight"]
    assert macs["none"]["forward"] == macs["full"]["forward"] < macs["lora"]["forward"]
    assert macs["none"]["grad_input"] < macs["lora"]["grad_input"]
    ops = found["full"].result.ops
    assert set(ops["arch"]) == {"cnvlutin", "h100_sxm"}
    own = ops[ops["arch"] == "cnvlutin"]
    assert {p: int(own["macs"][own["op"].map(pass_of) == p].sum()) for p in PASSES} == macs["full"]
    rows = {name: {row["arch"]: row for row in cost.rows()} for name, cost in found.items()}
    for arch in ("cnvlutin", "h100_sxm"):
        assert rows["none"][arch]["step_j"] < rows["full"][arch]["step_j"]
        assert rows["none"][arch]["backward_energy"] < rows["full"][arch]["backward_energy"] < 1
    assert found["none"].memory["optimizer"] < found["lora"].memory["optimizer"] < found["full"].memory["optimizer"]
    assert len({cost.step.hash for cost in found.values()}) == 3


def test_recorded_zeros_count_where_gradients_are_zero_too(
    relu: traces.TuneResult, tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    trace = traces.record(
        tiny_model,
        adapter=relu.path,
        data=tiny_data,
        limit=12,
        batch_size=4,
        out=tmp_path / "t.zarr",
        weights=True,
        progress=False,
    )
    cost = sk.tuning_cost(tiny_model, relu.path, "cnvlutin", masks=trace, threads=1)
    keep = (trace.tokens["batch"] == 1).to_numpy()
    assert cost.step.n_tokens == keep.sum()
    ops = cost.result.ops.set_index(["layer", "op"])
    for name, site in trace.sites.items():
        mask = site.mask(real_only=False).to_bool()[keep]
        wanted = int(mask.sum()) * site.n
        layer = trace.sites[name].layer
        for op in ("down", "down.grad_input", "down.grad_weight", "up.grad_input", "up.grad_weight"):
            assert ops.loc[(layer, op), "effectual_macs"] == wanted < ops.loc[(layer, op), "macs"]
        assert ops.loc[(layer, "up"), "effectual_macs"] == ops.loc[(layer, "up"), "macs"]


def test_behind_a_relu_gradients_are_zero_where_values_are(tiny_model: str) -> None:
    net = build_model(tiny_model, "classification", 2, Tuning(name="x", module=FullTuning(), activation=RELU), {}).net
    site = find_sites(net.train())[0]
    kept: dict[str, torch.Tensor] = {}
    module = net.get_submodule(str(site.activation))
    module.register_forward_hook(lambda _m, _i, output: kept.update(value=output.detach()))
    module.register_full_backward_hook(lambda _m, into, _out: kept.update(gradient=into[0]))
    loss_of(net, example(net, "classification", 4, 9), "classification").backward()
    zeros = kept["value"] == 0
    assert 0.1 < float(zeros.float().mean()) < 0.9
    assert torch.count_nonzero(kept["gradient"][zeros]) == 0


def test_command_prints_rows_and_names_what_is_wrong(tiny_model: str, tmp_path: Path) -> None:
    out = tmp_path / "cost.parquet"
    words = ["cost", "--model", tiny_model, "--tuning", "head", "--tuning", "lora", "-a", "cnvlutin", "-o", str(out)]
    done = CliRunner().invoke(app, [*words, "--batch", "2", "--length", "6", "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()] if done.stdout[0] == "{" else json.loads(done.stdout)
    assert [row["tuning"] for row in rows] == ["head", "lora"]
    assert all(row["peak_bytes"] > row["weights_bytes"] and row["step_s"] > 0 for row in rows)
    assert len(sk.load_result(out).meta["runs"]) == 2
    calibrated = Tuning(name="x", activation=Activation(type="shifted_relu", density=0.2))
    with pytest.raises(InputError, match=r"'x' makes choices on training data; name it"):
        sk.tuning_cost(tiny_model, calibrated, "cnvlutin")
