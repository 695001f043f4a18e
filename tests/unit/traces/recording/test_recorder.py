"""The recorder equals a plain torch hook, bit for bit, and stands up to being stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES, VISION, build, inputs

import traces
from traces.data.batches import collate, encode, sorted_order
from traces.errors import InputError, NumericError
from traces.models.load import load_model, load_tokenizer
from traces.models.sites import find_sites, gate_sites
from traces.recording.hooks import SiteTap, above
from traces.storage.bits import unpack


def plain_hook(model: torch.nn.Module, module: str, output: bool, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What passes a module, by an ordinary hook."""
    seen: list[torch.Tensor] = []
    owner = model.get_submodule(module)
    if output:
        handle = owner.register_forward_hook(lambda _m, _i, out: seen.append(out.detach().clone()))
    else:
        handle = owner.register_forward_pre_hook(lambda _m, i: seen.append(i[0].detach().clone()))
    with torch.inference_mode():
        model(**given)
    handle.remove()
    return seen


def relu(model: torch.nn.Module) -> torch.nn.Module:
    """Swap activations that are modules for ReLU, so that there is something to record."""
    for site in find_sites(model):
        if site.activation is not None:
            parent, _, leaf = site.activation.rpartition(".")
            setattr(model.get_submodule(parent), leaf, torch.nn.ReLU())
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_equal_a_plain_hook(family: str, dtype: torch.dtype) -> None:
    model = relu(build(family)).to(dtype)
    given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs(family, 3, 6).items()}
    if family not in VISION and "attention_mask" in given:
        given["attention_mask"][1, :2] = 0  # padding on the left
        given["attention_mask"][2, -3:] = 0  # and on the right
    sites = find_sites(model)
    sites += gate_sites(sites)
    tap = SiteTap(model, sites, ["0.01", "int8"])
    with torch.inference_mode():
        model(**given)
    masks, bad = tap.take().receive()
    assert not bad
    tap.close()
    for site in sites:
        seen = plain_hook(model, site.module, site.output, given)[site.call]
        flat = seen.reshape(-1, site.k)
        assert np.array_equal(unpack(masks[site.name], site.k), (flat != 0).numpy())
        assert np.array_equal(unpack(masks[f"{site.name}@0.01"], site.k), (flat.abs() > 0.01).numpy())
        assert np.array_equal(unpack(masks[f"{site.name}@int8"], site.k), above(flat, "int8").numpy())


def test_int8_mask_equals_quantising() -> None:
    values = torch.randn(200, 33)
    values[3] = 0
    scale = values.abs().amax(dim=1, keepdim=True) / 127
    quantised = torch.round(values / torch.where(scale == 0, torch.ones_like(scale), scale))
    near = ((values / scale).abs() - 0.5).abs() < 1e-4  # a tie may fall either way in floating point
    assert bool((((quantised != 0) == above(values, "int8")) | near).all())


@pytest.fixture(scope="module")
def recorded(tiny_model: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> traces.Trace:
    out = tmp_path_factory.mktemp("recorded") / "t.zarr"
    return traces.record(tiny_model, data=tiny_data, limit=20, out=out, batch_size=6, int8=True, progress=False)


def test_trace_holds_what_the_model_computes(recorded: traces.Trace, tiny_model: str, tiny_data: str) -> None:
    split = traces.load_data(tiny_data).test.head(20)
    tokens = encode(load_tokenizer(tiny_model), split.texts, 64)
    model = load_model(tiny_model)
    rows = recorded.tokens
    for index, batch_rows in enumerate(sorted_order([len(t) for t in tokens], 6)):
        batch = collate(tokens, batch_rows, 0)
        here = rows[rows["batch"] == index]
        assert here["sequence"].tolist() == np.repeat(batch_rows, batch.real.shape[1]).tolist()
        assert here["real"].tolist() == batch.real.flatten().tolist()
        for site in find_sites(model):
            (seen,) = plain_hook(model, site.module, False, batch.inputs)
            got = recorded.sites[site.name].mask(real_only=False).to_bool()[here.index]
            assert np.array_equal(got, (seen.reshape(-1, site.k) != 0).numpy())


def test_padding_is_left_out_unless_asked_for(recorded: traces.Trace) -> None:
    site = recorded.sites["layers.0.down"]
    assert recorded.n_tokens < recorded.rows
    assert site.mask().shape == (recorded.n_tokens, site.k)
    kept = site.mask(real_only=False).to_bool()[recorded.real]
    assert np.array_equal(site.mask().to_bool(), kept)
    assert site.density() == kept.mean()
    assert site.density(variant="int8") < site.density()


def test_ops_follow_each_sequence_or_the_padded_batches(recorded: traces.Trace) -> None:
    (real,) = [op for op in recorded.ops() if op.input_site == "layers.1.down"]
    (padded,) = [op for op in recorded.ops(real_only=False) if op.input_site == "layers.1.down"]
    assert (real.m, padded.m) == (recorded.n_tokens, recorded.rows)
    lengths = recorded.tokens[recorded.tokens["real"]].groupby("sequence").size()
    scores = [op for op in recorded.ops() if op.op == "scores" and op.layer == 0]
    assert sum(op.m * op.n * op.repeat for op in scores) == 3 * int((lengths**2).sum())


def test_a_finished_recording_is_returned_and_another_refused(
    recorded: traces.Trace, tiny_model: str, tiny_data: str
) -> None:
    same = {"data": tiny_data, "out": recorded.path, "batch_size": 6, "int8": True, "progress": False}
    assert traces.record(tiny_model, limit=20, **same).hash == recorded.hash
    with pytest.raises(InputError, match="another recording"):
        traces.record(tiny_model, limit=19, **same)


def test_more_sequences_than_there_are(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="24 held-out"):
        traces.record(tiny_model, data=tiny_data, limit=25, out=tmp_path / "t.zarr", progress=False)


def test_non_finite_activations_are_counted_and_named(tiny_data: str, tiny_model: str, tmp_path: Path) -> None:
    import shutil

    from tiny_families import build

    broken = build("bert")
    broken.bert.encoder.layer[1].intermediate.dense.bias.data[:5] = float("nan")
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    broken.save_pretrained(folder)
    arguments = {"data": tiny_data, "limit": 4, "batch_size": 4, "progress": False}
    with pytest.raises(NumericError, match=r"\d+ at layers\.1\.down"):
        traces.record(str(folder), out=tmp_path / "a.zarr", **arguments)
    allowed = traces.record(str(folder), out=tmp_path / "b.zarr", allow_non_finite=True, **arguments)
    assert allowed.sites["layers.1.down"].mask().to_bool()[:, :5].all()


def test_unknown_family_and_sites_by_hand(tiny_model: str) -> None:
    model = load_model(tiny_model)
    by_hand = find_sites(model, "encoder.layer.*.output.dense")
    assert {s.module for s in by_hand} >= {s.module for s in find_sites(model)}
    model.config.model_type = "unheard-of"
    with pytest.raises(InputError, match="name the sites by hand"):
        find_sites(model)
    with pytest.raises(InputError, match="no linear module matches"):
        find_sites(model, "no.such.*")


def test_threshold_must_be_positive(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"threshold -1"):
        traces.record(tiny_model, data=tiny_data, limit=2, thresholds=[-1.0], out=tmp_path / "t.zarr")
