"""Swap the MLP's activation function for one with exact zeros, then tune."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..sites import find_sites
from .registry import Method
from .spec import Activation

METHOD = Method(
    name="relufy",
    title="Replace GELU or SiLU by ReLU (or a shifted, squared or thresholded one), then tune",
    equation="a = max(x - shift, 0); relu2: max(x, 0)^2; threshold: f(x) where |f(x)| > t, else 0",
    source="Mirzadeh et al., ReLU Strikes Back, arXiv 2310.04564; ProSparse, arXiv 2402.13516",
    evidence="paper",
    notes="The swap alone costs accuracy; tuning wins it back.",
)


def replace_activation(model: Any, activation: Activation) -> None:
    """Replace the activation function of every MLP of a model, in place.

    Raises
    ------
    InputError
        If an MLP's activation function is not a module of its own.
    """
    for site in find_sites(model):
        if site.activation is None:
            raise InputError(f"{site.module}: its activation function is not a module, so it cannot be replaced")
        parent, _, leaf = site.activation.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, leaf, build(activation, getattr(owner, leaf)))


def build(activation: Activation, own: Any) -> Any:
    """Return the module that stands in for the model's own activation function."""
    import torch

    from . import activations

    makers = {
        "relu": torch.nn.ReLU,
        "shifted_relu": lambda: activations.ShiftedReLU(activation.shift),
        "relu2": activations.SquaredReLU,
        "threshold": lambda: activations.Thresholded(own, activation.threshold),
    }
    return makers[activation.type]()
