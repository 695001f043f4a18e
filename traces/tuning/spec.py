"""A tuning as one declarative object: module, activation change, density loss, training, seed."""

from __future__ import annotations

import hashlib
import io
import json
from html import escape
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, NodeEvent, ScalarEvent

from ..errors import InputError, did_you_mean
from .change import Change, Part
from .methods.ada_density import BlockGates
from .methods.density import DensityLoss
from .methods.lora import LoRA
from .methods.prune import Prune
from .methods.quantise import Quantise
from .methods.relufy import Activation
from .methods.salf import Freeze


def _modules() -> dict[str, type[Part]]:
    from .methods.registry import modules  # which imports this file

    return modules()


def _typed(value: Any) -> Part:
    """Read what stands under ``module`` by its ``type``."""
    if isinstance(value, Part):
        return value
    if not isinstance(value, dict) or "type" not in value:
        raise ValueError("expected a mapping with a 'type', such as {type: lora, r: 8}")
    known = _modules()
    if not isinstance(value["type"], str) or value["type"] not in known:
        raise ValueError(f"type '{value['type']}' is not known{did_you_mean(str(value['type']), known)}")
    return known[value["type"]].model_validate(value)


Module = Annotated[SerializeAsAny[Part], BeforeValidator(_typed)]


class Distil(Part):
    """Learn from the dense model too: KL divergence to a teacher's distribution (Hinton et al., arXiv 1503.02531).

    L = (1 - weight) L_task + weight T^2 KL(softmax(z_teacher / T) || softmax(z / T))

    Parameters
    ----------
    teacher : str
        Name of the tuning whose result teaches; it is tuned first where its folder is not beside this one's.
    weight : float
        Share of the teacher in the loss.
    temperature : float
        T.
    """

    teacher: str
    weight: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)


FORMER_NAMES = {"look_every": "eval_every", "set_aside": "validation_fraction"}


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
    precision : {"fp32", "bf16", "fp16"}
        Of the forward pass, by autocast; weights and their updates stay fp32. A processor knows bf16 (worth it where it
        has AMX) and computes fp16 as fp32.
    patience : int, optional
        Stop early after so many validations without a lower loss, and keep the best weights.
    eval_every : int
        Steps between two validations.
    validation_fraction : float
        Share of the training rows that is kept for validation, where `patience` is given.
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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    patience: int | None = Field(default=None, ge=1)
    eval_every: int = Field(default=50, ge=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, data: Any) -> Any:
        # tunings that were saved before the fields were renamed still load
        if isinstance(data, dict):
            return {FORMER_NAMES.get(name, name): value for name, value in data.items()}
        return data


class Tuning(Part):
    """One way to tune a model: everything but the model and the data.

    Parameters
    ----------
    name : str
        What it is called in traces, tables and figures.
    module : Part
        What is trained: its ``type`` is a registered method's.
    activation, prune, quantise, blocks, freeze, density, distil, train : Part, optional
        The other parts; see their classes.
    init_from : str, optional
        Name of the tuning whose result this one starts from.
    method : str
        Registered method that states equation, source and evidence label.
    seed : int
        Seeds the head's and the adapters' initial weights, the order of the samples, and dropout.
    title : str
        One line.

    Examples
    --------
    >>> tuning = traces.load_tuning("lora")
    >>> tuning.module.r
    8
    >>> tuning.model_copy(update={"name": "lora-seed-1", "seed": 1}).name
    'lora-seed-1'
    """

    name: str = Field(min_length=1)
    title: str = ""
    method: str = "lora"
    module: Module = LoRA()
    activation: Activation | None = None
    prune: Prune | None = None
    quantise: Quantise | None = None
    blocks: BlockGates | None = None
    freeze: Freeze | None = None
    density: DensityLoss | None = None
    distil: Distil | None = None
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

    def changes(self) -> list[Change]:
        """Return the changes of the model that this tuning asks for, in the order in which they are made."""
        pruned = self.prune.change() if self.prune is not None else None
        gates = self.blocks.change() if self.blocks is not None else None
        made: list[Change | None] = [
            self.activation.change() if self.activation is not None else None,
            pruned,
            self.quantise.change() if self.quantise is not None else None,
            gates.fold if gates is not None else None,  # undone after the module: gates scale what it was merged into
            self.module.change(),
            pruned.guard if pruned is not None else None,
            gates,
            self.freeze.change() if self.freeze is not None else None,
        ]
        return [change for change in made if change is not None]

    @property
    def hash(self) -> str:
        """SHA-256 over all but name, title and what is not set, so that parts added later change no hash."""
        data = self.model_dump(mode="json", exclude={"name", "title"}, exclude_none=True)
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
    data, lines = _loaded(text, where)
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping with at least 'name'")
    inside: tuple[str, ...] = ()
    owner: type[Part] = Tuning
    try:
        module = data.get("module")
        if isinstance(module, dict) and isinstance(module.get("type"), str) and module["type"] in _modules():
            # by itself first: inside Tuning its errors would not say which of its fields is wrong
            inside, owner = ("module",), _modules()[module["type"]]
            data = data | {"module": owner.model_validate(module)}
        inside, owner = (), Tuning
        return Tuning.model_validate(data)
    except ValidationError as error:
        told = []
        for one in error.errors():
            path = [*inside, *(str(p) for p in one["loc"])]
            line = _line_of(lines, path)
            at = f"{where}:{line}" if line else where
            reason = one["msg"].removeprefix("Value error, ")
            if one["type"] == "extra_forbidden":
                reason = "unknown key" + did_you_mean(path[-1], _known_keys(path[len(inside) : -1], owner))
            told.append(f"{at}: field '{'.'.join(path)}': {reason}")
        raise InputError("\n".join(told)) from error


# nesting, and values with every alias written out: far more than a tuning has
DEEPEST, MOST_VALUES, LONGEST = 40, 10_000, 1_000_000


def _loaded(text: str, where: str) -> tuple[Any, Any]:
    """Load YAML twice: plain, and with line numbers; what has no bound ends in one line."""
    if len(text) > LONGEST:
        raise InputError(f"{where}: {len(text):,} characters; at most {LONGEST:,} are read")
    try:
        _check_bounds(text, where)
        return YAML(typ="safe", pure=True).load(text), YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        raise InputError(f"{at}: {str(error.problem).strip()}; correct the YAML") from error
    except InputError:
        raise
    # whole numbers of thousands of digits, dates that do not exist, control characters
    except (YAMLError, ValueError, OverflowError, RecursionError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{where}: not YAML that can be read ({reason}); write plain text as UTF-8") from error


def _check_bounds(text: str, where: str) -> None:
    """Refuse aliases that multiply and deep nesting while reading, before anything is built."""
    total, opened = 0, []
    sizes: dict[str | None, int | None] = {}
    for event in YAML(typ="safe", pure=True).parse(text):
        line = event.start_mark.line + 1
        anchor = getattr(event, "anchor", None)
        if isinstance(event, AliasEvent):
            size = sizes.get(anchor, 0)
            if size is None:
                raise InputError(f"{where}:{line}: alias '{anchor}' contains itself; write it out")
            total += size
        elif isinstance(event, NodeEvent):
            total += 1
            sizes |= {anchor: 1 if isinstance(event, ScalarEvent) else None} if anchor else {}
            if not isinstance(event, ScalarEvent):
                opened.append((anchor, total))
        elif isinstance(event, CollectionEndEvent):
            started, before = opened.pop()
            sizes |= {started: total - before + 1} if started else {}
        if len(opened) > DEEPEST:
            raise InputError(f"{where}:{line}: nested more than {DEEPEST} levels deep; write it flatter")
        if total > MOST_VALUES:
            raise InputError(f"{where}:{line}: more than {MOST_VALUES:,} values, aliases counted; write fewer")


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


def _known_keys(path: list[str], owner: type[Part]) -> list[str]:
    """Return the keys that a part of `owner` knows."""
    for name in path:
        kinds = [owner.model_fields[name].annotation] if name in owner.model_fields else []
        kinds += [inner for kind in kinds for inner in get_args(kind)]
        owner = next((k for k in kinds if isinstance(k, type) and issubclass(k, Part)), owner)
    return list(owner.model_fields)
