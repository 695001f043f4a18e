"""The folder a tuning leaves behind: adapter, head, tuning.yaml, measurements.json, log.parquet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CorruptError, InputError
from ..models import load_model
from .lora import wrap
from .relufy import replace_activation
from .spec import LoRA, Tuning, load_tuning_file

SCHEMA = "zeroskip.tuning/1"
MEASUREMENTS = "measurements.json"
HEAD = "head.safetensors"
ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class TuneResult:
    """A finished tuning.

    Parameters
    ----------
    path : Path
        Its folder.
    tuning : Tuning
        What was asked for.
    measurements : dict
        Accuracy with standard error, densities, parameters, times, provenance.
    """

    path: Path
    tuning: Tuning
    measurements: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """Share of held-out items classified right."""
        return float(self.measurements["accuracy"])

    @property
    def accuracy_se(self) -> float:
        """Standard error of the accuracy, from the binomial distribution."""
        return float(self.measurements["accuracy_se"])

    @property
    def density(self) -> float:
        """Share of non-zeros at the down-projections' inputs, over real held-out tokens."""
        return float(self.measurements["density"])


def open_result(path: str | Path) -> TuneResult:
    """Read a tuning's folder.

    Raises
    ------
    InputError
        If the folder holds no finished tuning.
    CorruptError
        If its files are damaged.
    """
    folder = Path(path)
    file = folder / MEASUREMENTS
    if not file.is_file():
        raise InputError(f"'{folder}' holds no finished tuning (no {MEASUREMENTS}); run 'simkit tune -o {folder}'")
    try:
        measurements = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptError(f"{file} is damaged ({error}); delete it and tune again") from error
    if measurements.get("schema") != SCHEMA:
        raise InputError(f"{file}: schema is {measurements.get('schema')!r}, this version reads '{SCHEMA}'")
    return TuneResult(folder, load_tuning_file(folder / "tuning.yaml"), measurements)


def build_model(model: str, task: str, labels: int, tuning: Tuning) -> Any:
    """Load a model and change it as the tuning says: activation first, then adapters, all others frozen."""
    rate = tuning.train.dropout
    net = load_model(model, task, labels, tuning.seed, **dropout_fields(model, rate))
    if tuning.activation is not None:
        replace_activation(net, tuning.activation)
    if isinstance(tuning.module, LoRA):
        return wrap(net, tuning.module, task)
    for name, parameter in net.named_parameters():
        parameter.requires_grad = name.split(".")[0] in ("classifier", "score", "pre_classifier")
    return net


def dropout_fields(model: str, rate: float) -> dict[str, float]:
    """Return every dropout field that the model's configuration has, set to one rate."""
    from ..models import load_config

    known = load_config(model).to_dict()
    fields = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "resid_pdrop")
    more = ("embd_pdrop", "attn_pdrop", "activation_dropout", "seq_classif_dropout", "dropout_rate")
    return {name: rate for name in fields + more if name in known}


def load_weights(net: Any, folder: Path) -> None:
    """Load a finished tuning's adapter and head into a model built by `build_model`.

    Raises
    ------
    CorruptError
        If the file is damaged.
    InputError
        If it belongs to another module or model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / (ADAPTER if hasattr(net, "peft_config") else HEAD)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{file} cannot be read ({error}); tune again into an empty folder") from error
    if hasattr(net, "peft_config"):
        import peft

        expected = peft.get_peft_model_state_dict(net)
    else:
        expected = {n: p for n, p in net.named_parameters() if p.requires_grad}
    wrong = sorted(set(expected) ^ set(tensors))
    wrong += sorted(n for n in set(expected) & set(tensors) if expected[n].shape != tensors[n].shape)
    if wrong:
        raise InputError(f"{file} was made by another module or model: '{wrong[0]}' does not fit")
    if hasattr(net, "peft_config"):
        peft.set_peft_model_state_dict(net, tensors)
        return
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])


def load_tuned(path: str | Path, merge: bool = True) -> tuple[Any, TuneResult]:
    """Load a tuned model for inference.

    Parameters
    ----------
    path : str or Path
        A folder that `tune` made.
    merge : bool
        Fold the adapters into the weights, so that they cost nothing at inference.

    Returns
    -------
    model : torch.nn.Module
    result : TuneResult
    """
    result = open_result(path)
    facts = result.measurements
    net = build_model(facts["model"], facts["task"], facts["labels"], result.tuning)
    load_weights(net, result.path)
    if merge and hasattr(net, "peft_config"):
        net = net.merge_and_unload(safe_merge=True)
    return net.eval(), result
