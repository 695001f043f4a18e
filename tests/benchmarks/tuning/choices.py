"""Do the choices that SPT and SALF take on data beat choices by chance? Short tunings, five seeds each.

``python tests/benchmarks/tuning/choices.py`` tunes a small BERT that was trained on one task to another one (a minute);
``... choices.py minilm-l6 vader-movie`` tunes a real model (hours on two cores). Either writes its part of
``choices.json`` beside this file; a run that was stopped resumes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.files import write_json
from traces.provenance import provenance
from traces.tuning import FullTuning, LoRA, Training, Tuning, load_tuned, tune
from traces.tuning.methods.salf import Freeze
from traces.tuning.methods.spt import Spt

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "traces"))  # makers of tiny models

OUT = Path(__file__).with_suffix(".json")
SEEDS = range(5)
LAYERS, BUDGET = 6, 3  # of the models, and how many may be trained
HELD_OUT = 300
WORDS = ("good", "fine", "bright", "bad", "weak", "dull", "film", "plot", "actor", "slow", "the", "a", "is", "was")
FIRST = {"good": 1, "fine": 1, "bright": 1, "bad": -1, "weak": -1, "dull": -1}
SECOND = FIRST | {"slow": -1, "actor": 1}  # two words more to be read, and one that turns
SECOND["bright"] = -1


def write_task(path: Path, worth: dict[str, int], seed: int) -> None:
    """Write 3000 texts whose label is whether their words are worth more than nothing."""
    rng = np.random.default_rng(seed)
    lines = ["text,label"]
    while len(lines) <= 3000:
        words: NDArray[np.str_] = rng.choice(WORDS, size=int(rng.integers(6, 14)))
        score = sum(worth.get(str(word), 0) for word in words)
        lines += [f"{' '.join(words)},{int(score > 0)}"] if score else []
    path.write_text("\n".join(lines) + "\n")


def fixture(folder: Path) -> tuple[str, str]:
    """Return the folder of a small BERT that was trained on the first task, and the second task's data."""
    from tiny_models import write_tokenizer
    from transformers import BertConfig, BertForSequenceClassification

    place, trained = folder / "start", folder / "first"
    folder.mkdir(parents=True, exist_ok=True)
    if not (trained / "config.json").exists():
        config = BertConfig(
            vocab_size=32,
            hidden_size=48,
            intermediate_size=192,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=32,
            initializer_range=0.1,
        )
        BertForSequenceClassification(config).save_pretrained(place)
        write_tokenizer(place)
        write_task(folder / "first.csv", FIRST, 1)
        write_task(folder / "second.csv", SECOND, 2)
        plan = Tuning(name="first", method="full", module=FullTuning(), train=Training(epochs=6, lr=5e-4))
        net, found = load_tuned(tune(str(place), str(folder / "first.csv"), plan, folder / "full", progress=False).path)
        print("first task", found.accuracy, flush=True)
        write_tokenizer_and_body(net, trained)
    return str(trained), str(folder / "second.csv")


def write_tokenizer_and_body(net: Any, place: Path) -> None:
    """Save a model without its head, so that the next task begins with a new one."""
    from tiny_models import write_tokenizer

    net.bert.save_pretrained(place)
    write_tokenizer(place)


class Bench:
    """The runs on one model and task."""

    def __init__(self, folder: Path, model: str, data: str, train: Training, like_lora: int) -> None:
        self.folder, self.model, self.data, self.train, self.like_lora = folder, model, data, train, like_lora

    def run(self, name: str, seed: int, **parts: Any) -> dict[str, Any]:
        """Tune once and return what was measured."""
        plan = Tuning(name=name, train=self.train, seed=seed, **parts)
        out = self.folder / f"{name}-{seed}"
        found = tune(
            self.model, self.data, plan, out, test_limit=HELD_OUT, task="classification", progress=False
        ).measurements
        print(name, seed, found["accuracy"], flush=True)
        return found

    def spt(self, structured: str) -> dict[str, Any]:
        """Sensitive weights against drawn ones, with as many parameters."""
        found: dict[str, Any] = {}
        for pick in ("sensitivity", "random"):
            part = Spt(structured=structured, like_lora=self.like_lora, pick=pick)
            runs = [self.run(f"spt-{structured}-{pick}", seed, method="spt", module=part) for seed in SEEDS]
            trained = [r["trainable_parameters"] for r in runs]
            found[pick] = summary([r["accuracy"] for r in runs]) | {"trainable_parameters": trained}
        return found

    def salf(self) -> dict[str, Any]:
        """Both readings against an end of freezing drawn from those that the budget allows."""

        def frozen(seed: int, name: str, **policy: Any) -> dict[str, Any]:
            return self.run(name, seed, method="salf", module=LoRA(), freeze=Freeze(**policy))

        found: dict[str, Any] = {"layers": LAYERS, "trained_at_most": BUDGET}
        for reading in ("max_gain", "min_deviation"):
            runs = [frozen(seed, f"salf-{reading}", reading=reading, budget=BUDGET, batches=4) for seed in SEEDS]
            found[reading] = summary([r["accuracy"] for r in runs]) | {"eof": [r["freeze"]["eof"] for r in runs]}
        drawn = [int(np.random.default_rng(seed).integers(LAYERS - BUDGET, LAYERS)) for seed in SEEDS]
        runs = [frozen(seed, f"salf-eof{eof}", layers=eof) for seed, eof in zip(SEEDS, drawn, strict=True)]
        found["random"] = summary([r["accuracy"] for r in runs]) | {"eof": drawn}
        return found


def summary(accuracies: list[float]) -> dict[str, Any]:
    """Return the mean over seeds with its standard error, and the single values."""
    values = np.array(accuracies)
    se = float(values.std(ddof=1) / np.sqrt(len(values)))
    return {"accuracy": float(values.mean()), "accuracy_se": se, "by_seed": accuracies}


def main(folder: Path) -> None:
    """Run what is not there yet and write the result."""
    if len(sys.argv) > 2:
        model, data = sys.argv[1:3]
        given, train = (model, data), Training(max_samples=768, max_length=32, lr=3e-3)
    else:
        model, data = "fixture", "second task"
        given, train = fixture(folder / model), Training(max_samples=1024, max_length=16, lr=3e-3)
    longer = train.model_copy(update={"epochs": 2.0})  # single weights are slow to leave the majority class
    part: dict[str, Any] = {
        "command": " ".join(["python tests/benchmarks/tuning/choices.py", *sys.argv[1:3]]),
        "data": data,
        "held_out": HELD_OUT,
        "provenance": provenance(None),
    }
    slower = longer.model_copy(update={"lr": 1e-3})
    for name, plan in (("salf", train), ("spt-lora", longer), ("spt-lora-slower", slower)):
        bench = Bench(folder / model / name, *given, plan, 1)
        part[name] = bench.salf() if name == "salf" else bench.spt("lora")
        part[name]["train"] = plan.model_dump(mode="json")
        kept = json.loads(OUT.read_text()) if OUT.exists() else {}
        write_json(OUT, kept | {model: part})


if __name__ == "__main__":
    main(Path(tempfile.gettempdir()) / "tuning-choices")
