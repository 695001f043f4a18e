"""Accuracy against density of minilm-l6 on vader-movie, tuned for as long as it takes; density_curve.json holds it.

Run: ``python tests/benchmarks/tuning/density_curve.py [FOLDER]`` (about an hour on two idle cores). Each tuning starts
from the one before, all learn from the first. A run that was stopped goes on where it was; what is finished is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from traces.files import write_json
from traces.tuning import tune

MODEL, DATA = "minilm-l6", "vader-movie"
CURVE = ("lora-long", "density-distilled", "density-sparser", "density-sparsest")
KEPT = ("accuracy", "accuracy_se", "test_samples", "density", "density_per_layer", "trainable_parameters", "steps")
OUT = Path(__file__).with_suffix(".json")


def row(folder: Path) -> dict[str, Any]:
    """Return what a finished tuning measured, with all of its settings."""
    measured = json.loads((folder / "measurements.json").read_text())
    settings = YAML(typ="safe", pure=True).load((folder / "tuning.yaml").read_text())
    kept = {name: measured[name] for name in KEPT}
    return {"tuning": measured["tuning"], **kept, "settings": settings, "provenance": measured["provenance"]}


def main(folder: Path) -> None:
    """Tune what is not there yet, and write the rows."""
    rows = [row(tune(MODEL, DATA, name, folder / name, seed=0).path) for name in CURVE]
    write_json(OUT, {"model": MODEL, "data": DATA, "rows": rows})
    for line in rows:
        print(f"{line['tuning']:20} {line['accuracy']:.4f} ± {line['accuracy_se']:.4f}  density {line['density']:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/density-curve"))
