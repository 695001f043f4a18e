"""What a swap of the activation function costs before any training, with and without fitted down-projections.

Run: ``python tests/benchmarks/tuning/refit.py [FOLDER [MODEL...]]`` (half an hour on two idle cores, the LoRA tunings
among them). refit.json beside this file holds its last result; where models are named, the others' rows are kept. A
tuning that is finished below FOLDER is used as it is.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simkit.explore.methods import comparisons
from traces.data.batches import Batch
from traces.data.inputs import prepare
from traces.data.load import load_data
from traces.files import write_json
from traces.models.load import load_model
from traces.models.sites import find_sites
from traces.provenance import provenance
from traces.tuning import Activation, load_tuned, load_tuning, tune
from traces.tuning.change import Sample
from traces.tuning.evaluate import evaluate


@dataclass(frozen=True)
class Case:
    """Held-out rows that are measured, and what they are measured with."""

    measured: int
    swaps: tuple[dict[str, Any], ...]
    kinds: tuple[str | None, ...]


UNGATED: tuple[dict[str, Any], ...] = (
    {"type": "relu"},
    {"type": "threshold", "density": 0.1},
    {"type": "threshold", "density": 0.05},
    {"type": "threshold", "density": 0.02},
)
GATED: tuple[dict[str, Any], ...] = (
    {"type": "threshold", "density": 0.295},
    {"type": "threshold", "density": 0.295, "by": "contribution"},
    {"type": "threshold", "density": 0.295, "by": "contribution", "slope": 0.24},
    {"type": "threshold", "density": 0.5, "by": "contribution", "slope": 0.24},
)
CASES = {
    "minilm-l6": Case(500, UNGATED, (None, "bias", "weights")),
    "dinov2-s": Case(500, UNGATED, (None, "bias", "weights")),
    "smollm2-135m": Case(128, GATED, (None, "weights")),
}
SCORES = ("accuracy", "accuracy_se", "perplexity", "perplexity_se", "density")
OUT = Path(__file__).with_suffix(".json")


def no_loss(_net: Any, _batch: Batch) -> Any:
    """A fit takes no gradients."""
    raise AssertionError("a fit takes no gradients")


def measure(model: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield one row for each swap of a model tuned by LoRA, as `simkit compare methods` tunes it."""
    case, named = CASES[model], comparisons()[model]
    data, rows, plan = named.data, named.samples, load_tuning("lora")
    assert rows is not None
    train = plan.train.model_copy(update={"epochs": 1.0, "max_samples": rows, **named.train})
    done = tune(model, data, plan.model_copy(update={"train": train}), folder / model, test_limit=named.test_samples)
    net, task = load_tuned(done.path)[0], done.measurements["task"]
    splits = load_data(data, label=None if task == "causal-lm" else "label", task=task)
    known = prepare(model, task, splits.train.head(rows), train.max_length)
    unseen = prepare(model, task, splits.test.head(case.measured), train.max_length)

    def batches(count: int, size: int) -> Iterator[Batch]:
        for first in range(0, min(count * size, rows), size):
            yield known.batch(list(range(first, min(first + size, rows))))

    def scores(changed: Any, seconds: float, **what: Any) -> dict[str, Any]:
        found = evaluate(changed, unseen, find_sites(changed), task, True)
        kept = {name: float(found[name]) for name in SCORES if name in found}
        return {"model": model, "data": data, **what, **kept, "fit_seconds": round(seconds, 1)}

    if task == "causal-lm":  # without a head of its own, an untuned model's score means something
        yield scores(load_model(model, task), 0.0, type="untuned", target=None, refit=None)
    yield scores(net, 0.0, type=None, target=None, refit=None)
    for swap in case.swaps:
        for kind in case.kinds:
            changed, begun = copy.deepcopy(net), time.monotonic()
            change = Activation(**swap, refit=kind).change()
            decided = change.decide(changed, Sample(batches, no_loss, task, 0))
            taken = time.monotonic() - begun
            changed = change.apply(changed, task, decided)
            how = {name: value for name, value in swap.items() if name in ("by", "slope")}
            yield scores(changed, taken, type=swap["type"], target=swap.get("density"), refit=kind, **how)


def main(folder: Path, models: list[str]) -> None:
    """Measure the models and write the rows, each model's as soon as it is done."""
    kept: list[dict[str, Any]] = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if OUT.is_file() else []
    for model in models or CASES:
        rows = []
        for row in measure(model, folder):
            rows.append(row)
            what = " ".join(str(row[name]) for name in ("type", "target", "by", "slope", "refit") if row.get(name))
            name = "perplexity" if "perplexity" in row else "accuracy"
            print(f"{model:12} {what:40} {row[name]:.3f} ± {row[f'{name}_se']:.3f}  density {row['density']:.3f}")
        kept = [row for row in kept if row["model"] != model] + rows
        kept.sort(key=lambda row: list(CASES).index(row["model"]))
        write_json(OUT, {"rows": kept, "provenance": provenance(0)})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/refit"), sys.argv[2:])
