"""Accuracy against density of minilm-l6 on vader-movie, tuned for as long as it takes; density_curve.json holds it.

Run: ``python tests/benchmarks/tuning/density_curve.py [FOLDER [SEEDS]]`` (about an hour a seed on two idle cores). All
learn from the first; density-refit starts from it, and so does density-distilled, from which the sparser ones go on. A
run that was stopped resumes; what is finished is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from traces.files import write_json
from traces.tuning import tune

MODEL, DATA = "minilm-l6", "vader-movie"
CURVE = ("lora-long", "density-refit", "density-distilled", "density-sparser", "density-sparsest")
KEPT = ("accuracy", "accuracy_se", "test_samples", "density", "density_per_layer", "trainable_parameters", "steps")
OUT = Path(__file__).with_suffix(".json")


def row(folder: Path) -> dict[str, Any]:
    """Return what a finished tuning measured, with all of its settings."""
    measured = json.loads((folder / "measurements.json").read_text())
    settings = YAML(typ="safe", pure=True).load((folder / "tuning.yaml").read_text())
    kept = {name: measured[name] for name in KEPT}
    return {"tuning": measured["tuning"], **kept, "settings": settings, "provenance": measured["provenance"]}


def main(folder: Path, seeds: int) -> None:
    """Tune what is not there yet, write the rows, and print means with the standard errors over seeds."""
    rows = [
        row(tune(MODEL, DATA, name, folder / f"s{seed}" / name, seed=seed).path)
        for seed in range(seeds)
        for name in CURVE
    ]
    write_json(OUT, {"model": MODEL, "data": DATA, "rows": rows})
    print(summary(rows).to_string())


def summary(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return means over seeds and accuracy's standard error, the binomial one where there is one seed."""
    by = pd.DataFrame(rows).groupby("tuning", sort=False)
    table = by[["accuracy", "density"]].mean()
    table["accuracy_se"] = by["accuracy"].sem().fillna(by["accuracy_se"].first())
    return table.assign(seeds=by.size())


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0] if given else "out/density-curve"), int(given[1]) if len(given) > 1 else 3)
