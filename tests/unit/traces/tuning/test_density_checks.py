"""DEFT's literal penalty on fixtures that have learnt their task: what it cuts, and what it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from tiny_families import SMALL
from tiny_models import write_tokenizer

from traces.tuning import DensityLoss, FullTuning, LoRA, Training, Tuning, load_tuned, tune
from traces.tuning.methods.adapter import Adapter

SEEDS = (0, 1, 2)
WEIGHTS = (0.0, 1.0, 3.0, 10.0)


def fixture(activation: str, data: str, folder: Path) -> str:
    """Save a two-layer BERT of that activation function, tuned whole to its task."""
    torch.manual_seed(0)
    config = hf.BertConfig(**SMALL, hidden_act=activation, initializer_range=0.2)
    raw, ready = folder / f"{activation}-raw", folder / activation
    hf.BertForSequenceClassification(config).save_pretrained(raw)
    write_tokenizer(raw)
    whole = Tuning(name="full", module=FullTuning(), train=Training(epochs=4, batch_size=16, lr=3e-3, max_length=16))
    net, result = load_tuned(tune(str(raw), data, whole, folder / f"{activation}-full", progress=False).path)
    assert result.accuracy > 0.9
    net.save_pretrained(ready)
    write_tokenizer(ready)
    return str(ready)


def density_tuned(model: str, data: str, weight: float, seed: int, folder: Path, epochs: float) -> tuple[float, float]:
    plan = Tuning(
        name="deft",
        method="density",
        module=LoRA(r=4),
        density=DensityLoss(weight=weight),
        train=Training(epochs=epochs, batch_size=16, lr=3e-3, max_length=16),
        seed=seed,
    )
    result = tune(model, data, plan, folder / f"{Path(model).name}-{weight:g}-{seed}", progress=False)
    return result.density, result.accuracy


@pytest.mark.slow
def test_relu_fixture_falls_with_the_weight_and_gelu_stays(tiny_data: str, tmp_path: Path) -> None:
    relu = fixture("relu", tiny_data, tmp_path)
    found = [[density_tuned(relu, tiny_data, w, seed, tmp_path, 6) for w in WEIGHTS] for seed in SEEDS]
    density, accuracy = np.array(found).mean(axis=0).T
    spread = np.array(found)[:, :, 0].std(axis=0, ddof=1).max()
    assert (np.diff(density[:3]) < 0).all()
    assert density[3] < density[2] + spread  # the penalty saturates: processors' rounding decides the last step
    cut = 1 - density / density[0]
    assert cut[1] >= 0.08
    assert cut[2] >= 0.18
    assert accuracy[1] >= accuracy[0] - 0.02
    assert accuracy[2] >= accuracy[0] - 0.03
    gelu = fixture("gelu", tiny_data, tmp_path)
    for weight in (1.0, 10.0):
        assert density_tuned(gelu, tiny_data, weight, 0, tmp_path, 3)[0] >= 0.999


def test_adapters_behind_a_block_leave_the_first_layers_density(tiny_data: str, tmp_path: Path) -> None:
    relu = fixture("relu", tiny_data, tmp_path)
    layers = []
    for weight in (0.0, 10.0):
        plan = Tuning(
            name="adapter",
            method="density",
            module=Adapter(),
            density=DensityLoss(weight=weight),
            train=Training(epochs=2, batch_size=16, lr=3e-3, max_length=16),
        )
        result = tune(relu, tiny_data, plan, tmp_path / f"adapter-{weight:g}", progress=False)
        layers.append(result.measurements["density_per_layer"])
    assert layers[0][0] == layers[1][0]
    assert layers[0][1] != layers[1][1]
