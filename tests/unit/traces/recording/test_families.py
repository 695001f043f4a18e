"""Vision models and encoder-decoders recorded whole: both stacks' masks, ops, and what each needs of its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_families import PAIRS, VISION, build
from tiny_models import WORDS, write_tokenizer
from torch.utils.flop_counter import FlopCounterMode

import traces
from traces.data.batches import sorted_order
from traces.data.inputs import prepare
from traces.data.items import Inputs
from traces.errors import InputError
from traces.models.load import load_model
from traces.models.sites import find_sites, stack_of
from traces.oplist.example_inputs import example, probe_shapes, prompt_probe
from traces.oplist.ops import Template, expand
from traces.oplist.probe import probe_ops
from traces.recording.passes import ENCODE, spread

LIMIT, BATCH = 7, 3


def save(family: str, folder: Path) -> str:
    place = folder / family
    build(family).save_pretrained(place)
    if family not in VISION:
        write_tokenizer(place)
    if family == "whisper":
        from transformers import WhisperFeatureExtractor

        WhisperFeatureExtractor(feature_size=8, chunk_length=1, hop_length=800, n_fft=800).save_pretrained(place)
    if family in VISION:
        (place / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    return str(place)


def write_data(family: str, folder: Path) -> tuple[str, str]:
    """A data file of ten items for every held-out one, and the column they are in."""
    rng = np.random.default_rng(3)
    said = [" ".join(rng.choice(WORDS, size=rng.integers(1, 9))) for _ in range(70)]
    if family in VISION:
        from PIL import Image

        items = [f"{i}.png" for i in range(70)]
        for name in items:
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / name)
        labels = [i % 2 for i in range(70)]
    elif family == "whisper":
        from scipy.io import wavfile

        items = [f"{i}.wav" for i in range(70)]
        for name in items:
            wavfile.write(folder / name, 8000, rng.integers(-9999, 9999, rng.integers(900, 4000), dtype=np.int16))
        labels = said
    else:
        items, labels = [" ".join(rng.choice(WORDS, size=rng.integers(1, 12))) for _ in range(70)], said
    pd.DataFrame({"item": items, "label": labels}).to_csv(folder / "data.csv", index=False)
    return str(folder / "data.csv"), "item"


Recorded = tuple[traces.Trace, str, Inputs]


@pytest.fixture(scope="module", params=[*VISION, *PAIRS])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    family = str(request.param)
    folder = tmp_path_factory.mktemp(family)
    model = save(family, folder)
    data, column = write_data(family, folder)
    task = "image-classification" if family in VISION else "seq2seq"
    given = {"data": data, "text": column, "limit": LIMIT, "batch_size": BATCH, "max_length": 9, "progress": False}
    trace = traces.record(model, out=folder / "t.zarr", **given)
    split = traces.load_data(data, text=column, task=task).test.head(LIMIT)
    return trace, model, prepare(model, task, split, 9)


def test_every_site_equals_a_plain_hook(recorded: Recorded) -> None:
    trace, name, inputs = recorded
    model = load_model(name, trace.attrs["task"])
    seen: dict[str, list[np.ndarray]] = {}
    for site in find_sites(model):
        model.get_submodule(site.module).register_forward_pre_hook(
            lambda _m, given, site=site: seen.setdefault(site.name, []).append(given[0].reshape(-1, site.k) != 0)
        )
    kept: dict[str, list[np.ndarray]] = {}
    for rows in sorted_order(inputs.lengths, BATCH):
        batch = inputs.batch(rows)
        with torch.no_grad():
            model(**batch.inputs)
        for site in seen:
            kept.setdefault(site, []).append(batch.real_at(site).flatten().numpy())
    assert set(seen) == {n for n, s in trace.sites.items() if s.op == "down"}
    for site, parts in seen.items():
        wanted, real = np.concatenate(parts), np.concatenate(kept[site])
        assert np.array_equal(trace.sites[site].mask(real_only=False).to_bool(), wanted), site
        assert np.array_equal(trace.sites[site].mask().to_bool(), wanted[real]), site


def test_macs_equal_the_flop_counter_over_the_padded_batches(recorded: Recorded) -> None:
    trace, name, inputs = recorded
    model = load_model(name, trace.attrs["task"], attn_implementation="eager")
    total = 0
    for rows in sorted_order(inputs.lengths, BATCH):
        batch = inputs.batch(rows)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**batch.inputs)
        total += counter.get_total_flops() // 2
    padded = trace.ops(real_only=False)
    assert sum(op.macs for op in padded) == total
    assert sum(op.weight_bytes for op in padded) == sum(p.numel() * p.element_size() for p in model.parameters())
    alone = 0
    for row in range(LIMIT):
        given = inputs.batch([row]).inputs  # not below: a feature extractor computes too
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**given)
        alone += counter.get_total_flops() // 2
    assert sum(op.macs for op in trace.ops()) == alone


def test_rows_of_ops_are_rows_of_masks(recorded: Recorded) -> None:
    trace, _, inputs = recorded
    for real_only in (True, False):
        fed = [op for op in trace.ops(real_only) if op.input_site]
        assert {op.input_site for op in fed} == {n for n, s in trace.sites.items() if s.op == "down"}
        assert all(trace.sites[op.input_site].mask(real_only).shape == (op.m, op.k) for op in fed)
    assert trace.n_tokens == sum(inputs.lengths) + sum(inputs.targets)
    trace.verify()


@pytest.mark.slow
def test_stacks_are_told_apart_and_survive_slicing_and_merging(recorded: Recorded, tmp_path: Path) -> None:
    trace, name, _ = recorded
    stacks = {site.meta.stack for site in trace.sites.values()}
    two = {"encoder", "decoder"} if Path(name).name in PAIRS else {""}
    assert stacks == two
    assert ("encode" in set(trace.tokens["phase"])) == (len(two) == 2)
    first = traces.slice_trace(trace, tmp_path / "a.zarr", sequences=2)
    rest = traces.slice_trace(trace, tmp_path / "b.zarr", first=2)
    merged = traces.merge_traces([first, rest], tmp_path / "c.zarr")
    for site in trace.sites.values():
        parts = [t.sites[site.name].mask().popcount() for t in (first, rest)]
        assert sum(parts) == merged.sites[site.name].mask().popcount() == site.mask().popcount()
    assert sum(op.macs for op in merged.ops()) == sum(op.macs for op in trace.ops())


def test_synthetic_rows_keep_to_their_stack(recorded: Recorded, tmp_path: Path) -> None:
    trace, _, _ = recorded
    made = traces.synthesise(trace, tmp_path / "s.zarr", density=0.3)
    for name, site in made.sites.items():
        assert site.mask().shape == trace.sites[name].mask().shape
        words, rows = made.to_xarray(name)[name].to_numpy(), site.rows(real_only=False)
        assert not np.delete(words, rows, axis=0).any()
        assert 0.1 < site.density() < 0.5


@pytest.mark.parametrize("family", [*VISION, *PAIRS])
def test_ops_hold_for_a_shape_that_was_not_probed(family: str) -> None:
    model = build(family)
    shapes = probe_shapes(model)
    probed = probe_ops(model, [prompt_probe(model, *shape) for shape in shapes], shapes, find_sites(model))
    templates = [Template.from_dict(t.to_dict()) for t in probed]
    fixed = shapes[0][1] == shapes[1][1]
    shape = (4, shapes[0][1] if fixed else 17, *([9] if len(shapes[0]) > 2 else []))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**example(model, *shape))
    assert sum(op.macs for op in expand(templates, [shape])) == counter.get_total_flops() // 2


def test_spread_puts_zeros_in_the_other_stacks_rows() -> None:
    columns = {"phase": np.array([ENCODE, ENCODE, 0], dtype=np.int32)}
    arrays = {"e": np.array([[3], [4]]), "e@0.1": np.array([[5], [6]]), "d/values": np.array([[7]])}
    made = spread(arrays, columns, {"e": "encoder", "d": "decoder"})
    assert {key: rows[:, 0].tolist() for key, rows in made.items()} == {
        "e": [3, 4, 0],
        "e@0.1": [5, 6, 0],
        "d/values": [0, 0, 7],
    }


def test_stack_of() -> None:
    assert [stack_of(n) for n in ("encoder.layers.0.down", "model.decoder.layers.1.fc2", "layers.0.down")] == [
        "encoder",
        "decoder",
        "",
    ]


def test_a_task_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = save("vit", tmp_path)
    data, column = write_data("bart", tmp_path)
    with pytest.raises(InputError, match="takes images and this data set holds text"):
        traces.record(model, data=data, text=column, limit=2, out=tmp_path / "t.zarr", progress=False)
    pair = save("bart", tmp_path)
    with pytest.raises(InputError, match="recorded at seq2seq or features"):
        traces.record(pair, data=data, text=column, task="classification", limit=2, out=tmp_path / "t.zarr")
    with pytest.raises(InputError, match="task 'sequence' is not known"):
        traces.record(model, data=data, task="sequence", limit=2, out=tmp_path / "t.zarr", progress=False)


def test_a_model_is_described_by_its_sites(tmp_path: Path) -> None:
    facts = traces.describe("model", save("t5-gated", tmp_path))
    assert facts["family"] == "t5"
    assert facts["sites"]["decoder.layers.1.down"] == "decoder.block.1.layer.2.DenseReluDense.wo (K 40, N 24)"
    assert facts["sites"]["encoder.layers.0.gate"].startswith("encoder.block.0.layer.1.DenseReluDense.act")
    assert facts["linear_modules"]["encoder.block.*.layer.*.SelfAttention.q"] == "2 x (K 24, N 24)"


def test_an_unknown_family_says_how_its_sites_are_named_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traces.models.sites import FAMILIES

    model = save("llama", tmp_path)
    known = find_sites(build("llama"))
    monkeypatch.delitem(FAMILIES, "llama")
    facts = traces.describe("model", model)
    assert "not in the table of MLP sites" in facts["sites"]
    assert facts["name_sites_by_hand"] == ["--site 'model.layers.*.mlp.down_proj'"]
    pattern = facts["name_sites_by_hand"][0].split("'")[1]
    assert [s.module for s in find_sites(build("llama"), pattern)] == [s.module for s in known]


def test_a_star_stands_for_one_part_of_a_name() -> None:
    model = build("bert")
    named = find_sites(model, "encoder.layer.*.output.dense")
    assert [s.module for s in named] == [s.module for s in find_sites(model)]  # and not attention.output.dense
    assert len(find_sites(model, ["layer.0.*.dense", "layer.1.attention.*.dense"])) == 3
