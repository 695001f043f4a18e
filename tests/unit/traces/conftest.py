"""A tiny model and a tiny data set on disk, so that nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

WORDS = ("good", "bad", "film", "plot", "actor", "dull", "bright", "slow", "fine", "weak", "the", "a", "is", "was")


def write_tokenizer(folder: Path) -> None:
    """Write a word-level tokenizer with padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    text = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special})
    (folder / "tokenizer_config.json").write_text(text)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a randomly initialised two-layer BERT with a tokenizer."""
    from tiny_families import build

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    build("bert").save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """CSV of 240 short texts whose label is whether 'good' or 'bad' is in them."""
    rng = np.random.default_rng(5)
    lines = ["text,label"]
    for _ in range(240):
        label = int(rng.integers(2))
        words = [*rng.choice(WORDS[2:], size=rng.integers(2, 12)), "good" if label else "bad"]
        lines.append(f"{' '.join(rng.permutation(words))},{label}")
    path = tmp_path_factory.mktemp("data") / "films.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)
