"""A tuning as one declarative object: module, activation change, density loss, training, seed."""

from __future__ import annotations

import hashlib
import io
import json
from html import escape
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from ..errors import InputError, did_you_mean


class Part(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LoRA(Part):
    """Low-rank adaptation of linear layers, through the `peft` library (Hu et al., arXiv 2106.09685)."""

    type: Literal["lora"] = "lora"
    r: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class NoModule(Part):
    """No adapter: only the task head is trained, or nothing at all with ``head: false``."""

    type: Literal["none"] = "none"


Module = Annotated[LoRA | NoModule, Field(discriminator="type")]


class Activation(Part):
    """What replaces the MLP's activation function before tuning.

    ``relu``: max(x, 0). ``shifted_relu``: max(x - shift, 0). ``relu2``: max(x, 0)^2. ``threshold``: the model's own
    activation with results of magnitude up to `threshold` set to zero.
    """

    type: Literal["relu", "shifted_relu", "relu2", "threshold"]
    shift: float = 0.0
    threshold: float = Field(default=0.0, ge=0)


class DensityLoss(Part):
    """Penalty on the share of non-zero MLP activations; see `traces.tuning.density` for the equations.

    Parameters
    ----------
    weight : float
        Factor of the penalty in the loss.
    surrogate : {"deft", "tanh"}
        Smooth stand-in for the count: ``a^2 / (a^2 + eps)`` or ``tanh(beta * |a|)``.
    eps, eps_end : float
        The first surrogate's softness at the first and at the last step (geometric in between).
    beta, beta_end : float
        The second surrogate's slope at the first and at the last step (geometric in between).
    warmup : float
        Share of the steps over which the weight rises linearly from zero.
    at : {"product", "gate"}
        For gated MLPs, penalise what the down-projection sees or the gate branch alone.
    count_padding : bool
        Average over padding tokens too, as the released code of DEFT does.
    """

    weight: float = Field(default=1.0, ge=0)
    surrogate: Literal["deft", "tanh"] = "deft"
    eps: float = Field(default=1e-7, gt=0)
    eps_end: float | None = Field(default=None, gt=0)
    beta: float = Field(default=20.0, gt=0)
    beta_end: float | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.0, ge=0, le=1)
    at: Literal["product", "gate"] = "product"
    count_padding: bool = False


class Training(Part):
    """Training hyperparameters: AdamW, linear warm-up and decay, batches of similar length.

    Parameters
    ----------
    epochs : float
        Passes over the training split (or over its first `max_samples` rows).
    max_samples : int, optional
        Rows used of the training split.
    batch_size, accumulate : int
        Sequences in a forward pass, and passes in a step.
    max_length : int
        Tokens kept of a sequence.
    lr, weight_decay, warmup, clip : float
        Peak learning rate; decoupled weight decay; share of steps with a rising rate; largest gradient norm.
    dropout : float
        The base model's own dropout rates.
    bucket : int
        Batches in the pool that is sorted by length before it is cut into batches.
    """

    epochs: float = Field(default=1.0, gt=0)
    max_samples: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    max_length: int = Field(default=64, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.06, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    bucket: int = Field(default=32, ge=1)


class Tuning(Part):
    """One way to tune a model: everything but the model and the data.

    Parameters
    ----------
    name : str
        What it is called in traces, tables and figures.
    module, activation, density, train
        The parts; see their classes.
    init_from : str, optional
        Name of the tuning whose result this one starts from.
    method : str
        Registered method that states equation, source and evidence label.
    seed : int
        Seeds the head's and the adapters' initial weights, the order of the samples, and dropout.
    title : str
        One line.
    """

    name: str = Field(min_length=1)
    title: str = ""
    method: str = "lora"
    module: Module = LoRA()
    activation: Activation | None = None
    density: DensityLoss | None = None
    train: Training = Training()
    init_from: str | None = None
    seed: int = 0

    def _repr_html_(self) -> str:
        """Every choice, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
            for name, value in self.canonical().items()
            if value not in (None, "")
        )
        return f"<table><thead><tr><th>field</th><th>value</th></tr></thead><tbody>{rows}</tbody></table>"

    def canonical(self) -> dict[str, Any]:
        """Return plain data with every field, for files and hashes."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """SHA-256 over every field but the name and the title."""
        data = {k: v for k, v in self.canonical().items() if k not in ("name", "title")}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """Return the object as YAML."""
        stream = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        yaml.dump(self.canonical(), stream)
        return stream.getvalue()


def tuning_from_yaml(text: str, where: str) -> Tuning:
    """Parse a tuning; every error names the file, the line and the field.

    Raises
    ------
    InputError
        On broken YAML, a duplicate or unknown key, or a value out of range.
    """
    try:
        data = YAML(typ="safe", pure=True).load(text)
        lines = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        raise InputError(f"{at}: {str(error.problem).strip()}; correct the YAML") from error
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping with at least 'name'")
    try:
        return Tuning.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(p) for p in first["loc"] if p not in ("lora", "none")]
        line = _line_of(lines, path)
        at = f"{where}:{line}" if line else where
        reason = first["msg"]
        if first["type"] == "extra_forbidden":
            reason = "unknown key" + did_you_mean(path[-1], _known_keys(path[:-1]))
        raise InputError(f"{at}: field '{'.'.join(path)}': {reason}") from error


def load_tuning_file(path: Path) -> Tuning:
    """Read a tuning from a YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read tuning file '{path}': {error}") from error
    return tuning_from_yaml(text, str(path))


def _line_of(node: Any, path: list[str]) -> int | None:
    line = None
    for key in path:
        if not hasattr(node, "lc") or key not in node:
            break
        line = node.lc.key(key)[0] + 1
        node = node[key]
    return line


def _known_keys(path: list[str]) -> list[str]:
    parts: dict[str, type[Part]] = {
        "module": LoRA,
        "activation": Activation,
        "density": DensityLoss,
        "train": Training,
    }
    owner = parts.get(path[0], Tuning) if path else Tuning
    return list(owner.model_fields)
