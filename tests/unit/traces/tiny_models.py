"""Makes a tiny model and a tiny data set on disk, so that nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tiny_families import build

from traces.storage.arrays import SiteMeta
from traces.storage.bits import pack
from traces.storage.chunks import content_hash
from traces.storage.store import Writer, squeeze
from traces.storage.trace import open_trace
from traces.transform.import_masks import flat_columns

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


def make_model(folder: Path) -> str:
    """Save a randomly initialised two-layer BERT with a tokenizer."""
    place = folder / "tiny-bert"
    build("bert").save_pretrained(place)
    write_tokenizer(place)
    return str(place)


def make_data(folder: Path) -> str:
    """Write a CSV of 240 short texts whose label is whether 'good' or 'bad' is in them."""
    rng = np.random.default_rng(5)
    lines = ["text,label"]
    for _ in range(240):
        label = int(rng.integers(2))
        words = [*rng.choice(WORDS[2:], size=rng.integers(2, 12)), "good" if label else "bad"]
        lines.append(f"{' '.join(rng.permutation(words))},{label}")
    path = folder / "films.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write_masks(out: str) -> None:
    """Write ten commits of 600 random rows, going on where a former call stopped."""
    attrs = {"ops": squeeze([]), "tuning": {"name": "x"}}
    sites = [SiteMeta("a", 0, "down", 1536, 7)]
    writer = Writer(out, 6000, sites, attrs, resume=Path(out, "zarr.json").exists())
    columns = flat_columns(6000)
    for first in range(writer.root.rows, 6000, 600):
        rows = slice(first, first + 600)
        mask = np.random.default_rng(first).random((600, 1536)) < 0.3
        writer.append({name: values[rows] for name, values in columns.items()}, {"a": pack(mask)})
        writer.commit()
    writer.commit(status="complete", hash=content_hash(open_trace(out)))
    writer.close()
