"""What a trace can hold beside masks: values, weight masks, MLP inputs, adapters; and how much of it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from tiny_families import build, inputs
from tiny_models import write_tokenizer

import simkit as sk
import traces
from traces.errors import InputError
from traces.models.sites import find_sites, gate_sites
from traces.recording.hooks import SiteTap, above, quantised
from traces.recording.targets import places, site_metas, weight_mask
from traces.storage.bits import pack, unpack
from traces.transform.edit import merge_traces, slice_trace

GIVEN: dict[str, Any] = {"limit": 20, "batch_size": 6, "progress": False}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A gated decoder with a third of its MLP weights pruned away."""
    model = build("llama")
    made = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "mlp" in name:
            weight.data[torch.rand(weight.shape, generator=made) < 0.3] = 0
    folder = tmp_path_factory.mktemp("pruned") / "llama"
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_values_are_what_passed(kind: str, tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    trace = traces.record(tiny_model, data=tiny_data, out=tmp_path / "t.zarr", values=kind, int8=True, **GIVEN)
    plan_rows = trace.tokens
    model = traces.load_model(tiny_model)
    from traces.data.batches import collate, encode, sorted_order
    from traces.models.load import load_tokenizer

    tokens = encode(load_tokenizer(tiny_model), traces.load_data(tiny_data).test.head(20).texts, 64)
    batch = collate(tokens, sorted_order([len(t) for t in tokens], 6)[1], 0)
    here = plan_rows[plan_rows["batch"] == 1].index
    for site in find_sites(model):
        seen: list[torch.Tensor] = []
        handle = model.get_submodule(site.module).register_forward_pre_hook(
            lambda _m, i, s=seen: s.append(i[0].clone())
        )
        with torch.inference_mode():
            model(**batch.inputs)
        handle.remove()
        flat = seen[0].reshape(-1, site.k)
        found = trace.sites[site.name].values(real_only=False).to_array()[here]
        if kind == "bf16":
            assert np.array_equal(found, flat.to(torch.bfloat16).float().numpy())
        else:
            step = flat.abs().amax(dim=1, keepdim=True) / 127
            assert np.abs(found - flat.numpy()).max() <= 0.5001 * step.max()
            assert np.array_equal(found.astype(np.float32), (quantised(flat)[0].float() * quantised(flat)[1]).numpy())
        kept = trace.sites[site.name].values()
        assert kept.shape == (trace.n_tokens, site.k)
        assert [len(b) for b in kept.blocks(50)][:-1] == [50] * (-(-trace.n_tokens // 50) - 1)
    trace.verify()


def test_int8_values_and_the_int8_mask_agree() -> None:
    values = torch.randn(200, 70)
    values[5] = 0
    whole, step = quantised(values)
    assert bool((step[5] == 0).all())
    near = ((values / step).abs() - 0.5).abs() < 1e-4
    assert bool((((whole != 0) == above(values, "int8")) | near).all())


def test_values_survive_cutting_and_joining_and_count_for_the_hash(
    tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    whole = traces.record(tiny_model, data=tiny_data, out=tmp_path / "t.zarr", values="int8", **GIVEN)
    plain = traces.record(tiny_model, data=tiny_data, out=tmp_path / "p.zarr", **GIVEN)
    assert plain.hash != whole.hash
    parts = [slice_trace(whole, tmp_path / f"{i}.zarr", sequences=10, first=10 * i) for i in range(2)]
    joined = merge_traces(parts, tmp_path / "j.zarr")
    for name, site in whole.sites.items():
        a, b = (t.sites[name].values().to_array().sum(axis=1) for t in (whole, joined))
        assert np.array_equal(np.sort(a), np.sort(b))
        assert site.density() == joined.sites[name].density()
    with pytest.raises(InputError, match="has no values; record with"):
        plain.sites["layers.0.down"].values()


def test_a_flipped_byte_or_a_lost_file_of_values_is_named(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    trace = traces.record(tiny_model, data=tiny_data, out=tmp_path / "t.zarr", values="int8", **GIVEN)
    for array in ("values", "scale"):
        file = tmp_path / "t.zarr" / "sites" / "layers.0.down" / array / "c" / "0" / "0"
        data = file.read_bytes()
        file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        with pytest.raises(traces.CorruptError, match=rf"layers\.0\.down/{array}"):
            traces.open_trace(trace.path).verify()
        file.unlink()
        with pytest.raises(traces.CorruptError, match=rf"layers\.0\.down/{array}"):
            traces.open_trace(trace.path).verify()
        file.write_bytes(data)
    traces.open_trace(trace.path).verify()


def test_weight_masks_are_the_pruned_weights_and_reach_the_replay(pruned: str, tiny_data: str, tmp_path: Path) -> None:
    trace = traces.record(pruned, data=tiny_data, out=tmp_path / "t.zarr", weights=True, **GIVEN)
    model = traces.load_model(pruned, "causal-lm")
    for layer in range(2):
        mlp = model.get_submodule(f"model.layers.{layer}.mlp")
        for name, weight in (("down", mlp.down_proj.weight), ("gate", mlp.up_proj.weight)):
            kept = trace.sites[f"layers.{layer}.{name}"].weight_mask()
            assert kept is not None
            assert np.array_equal(kept.to_bool(), (weight != 0).numpy())
            assert 0.5 < kept.popcount() / weight.numel() < 0.8
    work = sk.replay.__globals__["Workload"](trace)
    ops = {(op.name, op.layer): op for op in work.items}
    for layer in range(2):
        assert ops["down", layer].weight.shape == (24, 40)
        assert ops["up", layer].weight.shape == (40, 24)
        assert ops["up", layer].output.shape == (trace.n_tokens, 40)
        assert ops["gate", layer].weight is None
    trace.verify()


def test_weight_masks_of_other_layouts() -> None:
    for family in ("gpt2", "bert", "t5-gated"):
        model = build(family)
        (site, *_) = find_sites(model)
        weight = model.get_submodule(site.module).weight
        weight.data[..., 3] = 0
        mask = unpack(weight_mask(model, site), site.k)
        rows = weight.T if family == "gpt2" else weight
        assert np.array_equal(mask, (rows != 0).numpy())
        assert not mask.all()
    (gate, *_) = gate_sites(find_sites(model))
    assert unpack(weight_mask(model, gate), gate.n).shape == (gate.k, gate.n)


@pytest.mark.parametrize("family", ["bert", "llama", "opt", "gpt2", "distilbert", "modernbert", "albert"])
def test_mlp_inputs_equal_a_plain_hook(family: str) -> None:
    model = build(family)
    every, chosen, linked = places(model, mlp_inputs=True)
    inner = [s for s in chosen if s.name.endswith(".up")]
    assert len(inner) == len(every)
    given = inputs(family, 2, 5)
    tap = SiteTap(model, chosen)
    seen: dict[tuple[str, int], torch.Tensor] = {}
    calls: dict[str, int] = {}

    def note(_m: Any, i: Any, module: str) -> None:
        seen[module, calls.get(module, 0)] = i[0].detach().clone()
        calls[module] = calls.get(module, 0) + 1

    for module in {s.module for s in inner}:
        model.get_submodule(module).register_forward_pre_hook(lambda m, i, module=module: note(m, i, module))
    with torch.inference_mode():
        model(**given)
    arrays, _ = tap.take().receive()
    for site in inner:
        flat = seen[site.module, site.call].reshape(-1, site.k)
        assert np.array_equal(arrays[site.name], pack((flat != 0).numpy()))
        assert site.k == 24
    assert set(linked.values()) == {s.name for s in inner}
    if family == "llama":  # gate and up read the same
        assert len(linked) == 2 * len(inner)


def test_ops_see_the_mlp_inputs(pruned: str, tiny_data: str, tmp_path: Path) -> None:
    trace = traces.record(pruned, data=tiny_data, out=tmp_path / "t.zarr", mlp_inputs=True, layers=[1], **GIVEN)
    assert set(trace.sites) == {"layers.1.down", "layers.1.gate", "layers.1.up"}
    linked = {(op.op, op.layer): op.input_site for op in trace.ops() if op.input_site}
    assert linked == {
        ("up", 1): "layers.1.up",
        ("gate", 1): "layers.1.up",
        ("down", 1): "layers.1.down",
    }
    assert trace.sites["layers.1.up"].n == 40


def test_adapters_that_are_not_folded_in(tiny_model: str) -> None:
    model = traces.load_model(tiny_model)
    given = LoraConfig(r=4, target_modules=["query", "output.dense"], init_lora_weights=False)
    wrapped = inject_adapter_in_model(given, model).eval()
    _, chosen, linked = places(wrapped, adapters=True)
    found = [s for s in chosen if s.op.endswith("lora_b")]
    assert {s.op for s in found} >= {"q.lora_b", "down.lora_b"}
    assert {s.k for s in found} == {4}
    assert len({s.name for s in chosen}) == len(chosen)
    assert set(linked.values()) == {s.name for s in found}
    tap = SiteTap(wrapped, chosen)
    with torch.inference_mode():
        wrapped(input_ids=torch.ones((2, 5), dtype=torch.long))
    arrays, _ = tap.take().receive()
    assert all(len(arrays[s.name]) == 10 for s in found)
    with pytest.raises(InputError, match="no adapter beside its weights"):
        places(build("bert"), adapters=True)


@pytest.mark.parametrize("gated", [False, True])
def test_bottlenecks_and_their_gates(gated: bool, tiny_model: str) -> None:
    from traces.tuning.layers.bottleneck import Adapted, Bottleneck
    from traces.tuning.layers.gate import Gate, GatedBottleneck, RealTokens

    model = traces.load_model(tiny_model)
    for site in find_sites(model):
        owner, leaf = site.module.rpartition(".")[::2]
        gate = Gate(24, "straight-through", False, RealTokens(model), "")
        torch.nn.init.zeros_(gate.bias)
        inner = GatedBottleneck(24, 6, "relu", gate) if gated else Bottleneck(24, 6, "relu")
        setattr(model.get_submodule(owner), leaf, Adapted(model.get_submodule(site.module), inner))
    model.eval()
    _, chosen, linked = places(model, r"*.output.dense.base_layer", adapters=True)
    found = [s for s in chosen if s.op.startswith("adapter.")]
    assert {(s.op, s.k) for s in found} == {("adapter.gate", 1) if gated else ("adapter.up", 6)}
    assert len(linked) == (0 if gated else 2)
    tap = SiteTap(model, chosen)
    seen: dict[str, torch.Tensor] = {}
    for site in found:
        owner = model.get_submodule(site.module)
        if gated:
            owner.register_forward_hook(lambda _m, _i, out, name=site.name: seen.__setitem__(name, out.clone()))
        else:
            owner.register_forward_pre_hook(lambda _m, i, name=site.name: seen.__setitem__(name, i[0].clone()))
    with torch.inference_mode():
        model(input_ids=torch.randint(4, 18, (3, 6), generator=torch.Generator().manual_seed(1)))
    arrays, _ = tap.take().receive()
    for site in found:
        wanted = (seen[site.name].reshape(-1, site.k) != 0).numpy()
        assert np.array_equal(unpack(arrays[site.name], site.k), wanted)
        assert 0 < wanted.mean() < 1


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [("1", {"layers.1.down"}), ([0], {"layers.0.down"}), ("0-1", {"layers.0.down", "layers.1.down"}),
     ("layers.[1-9].*", {"layers.1.down"}), ("0, 1", {"layers.0.down", "layers.1.down"})],
)  # fmt: skip
def test_layers_by_number_span_and_glob(layers: Any, wanted: set[str]) -> None:
    _, chosen, _ = places(build("bert"), layers=layers)
    assert {site.name for site in chosen} == wanted


@pytest.mark.parametrize("layers", ["2", "layers.7.*", "0,9", ""])
def test_layers_that_are_not_there(layers: str) -> None:
    with pytest.raises(InputError, match=r"nothing matches .*the model has layers 0, 1"):
        places(build("bert"), layers=layers)


def test_a_budget_of_tokens(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    whole = traces.record(tiny_model, data=tiny_data, out=tmp_path / "w.zarr", limit=24, batch_size=6, progress=False)
    lengths = whole.tokens[whole.tokens["real"]].groupby("sequence").size()
    part = traces.record(tiny_model, data=tiny_data, out=tmp_path / "t.zarr", tokens=100, batch_size=6, progress=False)
    count = part.tokens["sequence"].nunique()
    assert part.n_tokens == lengths[:count].sum() >= 100 > lengths[: count - 1].sum()
    assert part.attrs["budget"]["asked"] == {"tokens": 100}
    reached = part.attrs["budget"]["reached"]
    assert (reached["sequences"], reached["tokens"]) == (count, part.n_tokens)
    assert part.attrs["data"]["sequences"] == count
    with pytest.raises(InputError, match=rf"24 held-out sequences .* have {whole.n_tokens} tokens"):
        traces.record(tiny_model, data=tiny_data, out=tmp_path / "x.zarr", tokens=10**6, progress=False)
    assert not (tmp_path / "x.zarr").exists()


def test_a_budget_of_seconds_is_decided_by_batches_and_goes_on_where_it_was(
    tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traces.recording.overhead import Clock

    given = {"data": tiny_data, "batch_size": 2, "seconds": 5.0, "progress": False}
    # each batch counts as a second, so that the machine's speed does not matter
    monkeypatch.setattr(Clock, "forward_seconds", property(lambda self: float(self._tap.passes)))
    take, stop = SiteTap.take, 0

    def counted(self: SiteTap) -> Any:
        self.passes = getattr(self, "passes", before) + 1
        if stop and self.passes > stop:
            raise KeyboardInterrupt
        return take(self)

    before = 0
    monkeypatch.setattr(SiteTap, "passes", 0, raising=False)
    monkeypatch.setattr(SiteTap, "take", counted)
    first = traces.record(tiny_model, out=tmp_path / "a.zarr", **given)
    assert first.attrs["budget"]["reached"]["batches"] == 5
    assert first.attrs["budget"]["planned_batches"] == 12
    assert first.tokens["batch"].nunique() == 5
    lengths = first.tokens.groupby("batch").size()
    assert not lengths.is_monotonic_increasing  # not only the shortest
    monkeypatch.setattr("traces.recording.recorder.COMMIT_SECONDS", 0.0)
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        traces.record(tiny_model, out=tmp_path / "b.zarr", **given)
    left = traces.open_trace(tmp_path / "b.zarr")
    assert left.status == "recording"
    before, stop = left.tokens["batch"].nunique(), 0
    monkeypatch.setattr(SiteTap, "passes", before)
    again = traces.record(tiny_model, out=tmp_path / "b.zarr", **given)
    assert again.hash == first.hash


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"tokens": 0}, "--tokens 0"), ({"seconds": -1.0}, "--seconds -1"), ({"limit": 0}, "--limit 0"),
     ({"values": "fp4"}, "say bf16 or int8"), ({"dtype": "float8"}, "not known; did you mean"),
     ({"device": "gpu"}, "say cpu or cuda"), ({"device": "cuda"}, "no CUDA device"),
     ({"layers": "9"}, "nothing matches")],
)  # fmt: skip
def test_budgets_and_options_that_make_no_sense(
    bad: dict[str, Any], message: str, tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    if bad.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(InputError, match=message):
        traces.record(tiny_model, data=tiny_data, out=tmp_path / "t.zarr", **(GIVEN | bad))
    assert not (tmp_path / "t.zarr").exists()


def test_another_number_format(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    half = traces.record(tiny_model, data=tiny_data, out=tmp_path / "t.zarr", dtype="bfloat16", **GIVEN)
    full = traces.record(tiny_model, data=tiny_data, out=tmp_path / "f.zarr", **GIVEN)
    assert half.attrs["dtype"] == "bfloat16"
    two, four = (sum(op.weight_bytes for op in t.ops()) for t in (half, full))
    assert 2 * two == four
    metas, _ = site_metas(traces.load_model(tiny_model), find_sites(traces.load_model(tiny_model)), [], "", False)
    assert half.root.sites == metas
