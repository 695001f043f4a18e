"""What a swap of the activation function costs before any training, with and without fitted down-projections.

Run: ``python tests/benchmarks/tuning/refit.py [FOLDER]`` (ten minutes on two idle cores, the LoRA tunings among them).
refit.json beside this file holds its last result. A tuning that is finished below FOLDER is used as it is.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from traces.batches import Batch
from traces.data import load_data
from traces.files import write_json
from traces.inputs import prepare
from traces.provenance import provenance
from traces.sites import find_sites
from traces.tuning import Activation, Training, load_tuned, load_tuning, tune
from traces.tuning.change import Sample
from traces.tuning.evaluate import evaluate

CASES: dict[str, tuple[str, int, int | None]] = {  # data, rows to tune on, and to measure LoRA on
    "minilm-l6": ("vader-movie", 2048, None),
    "dinov2-s": ("fashion-mnist", 1024, 1000),
}
MEASURED = 500  # held-out rows of each swap
SWAPS: tuple[dict[str, Any], ...] = (
    {"type": "relu"},
    {"type": "threshold", "density": 0.1},
    {"type": "threshold", "density": 0.05},
    {"type": "threshold", "density": 0.02},
)
KINDS = (None, "bias", "weights")
OUT = Path(__file__).with_suffix(".json")


def no_loss(_net: Any, _batch: Batch) -> Any:
    """A fit takes no gradients."""
    raise AssertionError("a fit takes no gradients")


def measure(model: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield one row for each swap of a model tuned by LoRA."""
    data, rows, held_out = CASES[model]
    plan = load_tuning("lora")
    train = Training(epochs=1, max_samples=rows, lr=plan.train.lr, precision="bf16" if model == "dinov2-s" else "fp32")
    done = tune(model, data, plan.model_copy(update={"train": train}), folder / model, test_limit=held_out)
    net, task = load_tuned(done.path)[0], done.measurements["task"]
    splits = load_data(data, task=task)
    known = prepare(model, task, splits.train.head(rows), train.max_length)
    unseen = prepare(model, task, splits.test.head(MEASURED), train.max_length)

    def batches(count: int, size: int) -> Iterator[Batch]:
        for first in range(0, min(count * size, rows), size):
            yield known.batch(list(range(first, min(first + size, rows))))

    def scores(changed: Any, seconds: float, **what: Any) -> dict[str, Any]:
        found = evaluate(changed, unseen, find_sites(changed), task, True)
        kept = {name: float(found[name]) for name in ("accuracy", "accuracy_se", "density")}
        return {"model": model, "data": data, **what, **kept, "fit_seconds": round(seconds, 1)}

    yield scores(net, 0.0, type=None, target=None, refit=None)
    for swap in SWAPS:
        for kind in KINDS:
            changed, begun = copy.deepcopy(net), time.monotonic()
            change = Activation(**swap, refit=kind).change()
            decided = change.decide(changed, Sample(batches, no_loss, task, 0))
            taken = time.monotonic() - begun
            changed = change.apply(changed, task, decided)
            yield scores(changed, taken, type=swap["type"], target=swap.get("density"), refit=kind)


def main(folder: Path) -> None:
    """Measure both models and write the rows."""
    rows = []
    for model in CASES:
        for row in measure(model, folder):
            rows.append(row)
            what = f"{row['type'] or 'own'} {row['target'] or ''} {row['refit'] or ''}"
            print(
                f"{model:10} {what:24} {row['accuracy']:.3f} ± {row['accuracy_se']:.3f}  density {row['density']:.3f}"
            )
    write_json(OUT, {"rows": rows, "provenance": provenance(0)})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/refit"))
