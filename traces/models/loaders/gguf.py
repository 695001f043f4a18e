"""Llama models in GGUF: dequantised and renamed to a plain transformers folder."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CorruptError
from .common import Extract, member, needed, save, write_facts

CONTROL = 3  # the type of tokens that text never gives

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INSIDE = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def llama(member_name: str, model: str) -> Extract:
    """Return the extraction of a Llama model, its tokenizer among the file's metadata."""

    def extract(archive: Path, folder: Path) -> None:
        needed("gguf", f"model '{model}'")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf-") as temporary:
            file = Path(temporary) / "model.gguf"
            file.write_bytes(member(archive, member_name))
            convert_llama(file, folder)

    return extract


def convert_llama(file: Path, folder: Path) -> None:
    """Save a GGUF file's weights as ``LlamaForCausalLM`` in float32, with its tokenizer.

    Raises
    ------
    CorruptError
        If the file holds another architecture, or not every weight.
    """
    from gguf import GGUFReader, dequantize
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(str(file))
    facts = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("llama.", "general."))}
    if facts.get("general.architecture") != "llama":
        raise CorruptError(f"{file.name}: architecture is '{facts.get('general.architecture')}', not 'llama'")
    special = {
        f"{word}_token_id": int(field.contents())
        for word, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        if (field := reader.fields.get(f"tokenizer.ggml.{key}_token_id")) is not None
    }
    heads, kv_heads = int(facts["llama.attention.head_count"]), int(facts["llama.attention.head_count_kv"])
    config = LlamaConfig(
        vocab_size=int(facts["llama.vocab_size"]),
        hidden_size=int(facts["llama.embedding_length"]),
        intermediate_size=int(facts["llama.feed_forward_length"]),
        num_hidden_layers=int(facts["llama.block_count"]),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=int(facts["llama.context_length"]),
        rms_norm_eps=float(facts["llama.attention.layer_norm_rms_epsilon"]),
        rope_parameters={"rope_type": "default", "rope_theta": float(facts["llama.rope.freq_base"])},
        tie_word_embeddings=not any(t.name == "output.weight" for t in reader.tensors),
        **special,
    )
    weights = {}
    for tensor in reader.tensors:
        value = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if re.search(r"attn_[qk]\.weight", tensor.name):
            value = _halves(value, heads if "attn_q" in tensor.name else kv_heads)
        weights[_name(tensor.name)] = value
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    save(model, weights, folder)
    _tokenizer(reader, file.name, folder)


def _name(name: str) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    block, part = match.groups() if match else (None, "")
    if block is None:
        return f"{_TOP.get(part, name)}.weight"
    return f"model.layers.{block}.{_INSIDE.get(part, name)}.weight"


def _halves(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undo GGUF's order of query and key rows: it keeps the two members of each rotated pair side by side.

    transformers rotates row i of a head with row i + d/2.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(reader: Any, source: str, folder: Path) -> None:
    """Write the byte-level BPE tokenizer among a GGUF file's metadata."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    def fact(name: str) -> Any:
        return reader.fields[f"tokenizer.ggml.{name}"].contents()

    if (fact("model"), fact("pre")) != ("gpt2", "smollm"):
        raise CorruptError(f"{source}: tokenizer is '{fact('model')}' / '{fact('pre')}', not 'gpt2' / 'smollm'")
    words: list[str] = fact("tokens")
    merges = [tuple(pair.split(" ")) for pair in fact("merges")]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges))
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    control = [word for word, kind in zip(words, fact("token_type"), strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{name}_token": words[fact(f"{key}_token_id")] for name, key in names.items()}
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": reader.fields["tokenizer.chat_template"].contents(),
    }
    write_facts(folder / "tokenizer_config.json", facts | special)
