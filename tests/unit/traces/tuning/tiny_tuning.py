"""Tiny models with tokenizers, data of every text task, and a second measurement of what was tuned."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from tiny_families import build
from tiny_models import WORDS, make_data, make_model, write_tokenizer

import traces
from traces.data.inputs import prepare
from traces.models.sites import find_sites
from traces.tuning import load_tuned
from traces.tuning.evaluate import evaluate

TASKS = {"bert": "classification", "llama": "causal-lm", "t5": "seq2seq"}
SCORES = ("accuracy", "perplexity", "density", "density_per_layer", "density_paper")


def save_model(family: str, folder: Path) -> str:
    """Save a tiny member of a family with a tokenizer."""
    if family == "bert":
        return make_model(folder)
    build(family).save_pretrained(folder / family)
    write_tokenizer(folder / family)
    return str(folder / family)


def save_data(task: str, folder: Path) -> str:
    """Write 120 texts; for sequence to sequence, each with its words in reverse order."""
    if task != "seq2seq":
        return make_data(folder)
    rng = np.random.default_rng(7)
    rows = [list(rng.choice(WORDS, size=rng.integers(2, 8))) for _ in range(120)]
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((" ".join(r), " ".join(r[::-1])) for r in rows)])
    return str(folder / "pairs.csv")


def measured_again(result: traces.TuneResult, merge: bool, limit: int | None = None) -> dict[str, Any]:
    """Load a finished tuning and measure it on the held-out split once more."""
    net, _ = load_tuned(result.path, merge=merge)
    facts = result.measurements
    label = None if facts["task"] == "causal-lm" else "label"
    test = traces.load_data(facts["data"], label=label, task=facts["task"]).test.head(limit)
    items = prepare(facts["model"], facts["task"], test, result.tuning.train.max_length)
    found = evaluate(net, items, find_sites(net), facts["task"], False)
    return {name: found[name] for name in SCORES if name in found}
