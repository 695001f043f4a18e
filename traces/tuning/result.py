"""The folder a tuning leaves behind: weights, choices, tuning.yaml, measurements.json, log.parquet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CorruptError, InputError
from ..files import write_atomic
from ..models.experts import name_sites
from ..models.limits import running
from ..models.load import load_model
from .change import Change, Decided, Sample
from .methods.lora import heads
from .score import LANGUAGE
from .spec import Tuning, load_tuning_file

SCHEMA = "zeroskip.tuning/2"
MEASUREMENTS = "measurements.json"
ADAPTER = "adapter_model.safetensors"  # in peft's form
WEIGHTS = "weights.safetensors"
SIZES = ("r", "r_start", "reduction", "count", "virtual_tokens", "targets")  # where these differ, so do the shapes
DECIDED = "decided.safetensors"


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

    Examples
    --------
    >>> result = traces.tune(data="vader-movie", tuning="lora", out="lora", limit=64)  # doctest: +SKIP
    >>> result.measurements["accuracy"]  # doctest: +SKIP
    """

    path: Path
    tuning: Tuning
    measurements: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """Share of held-out items (of tokens, for language models) that are right; NaN for a regression."""
        return float(self.measurements.get("accuracy", "nan"))

    @property
    def accuracy_se(self) -> float:
        """Standard error of the accuracy."""
        return float(self.measurements.get("accuracy_se", "nan"))

    @property
    def density(self) -> float:
        """Share of non-zeros at the down-projections' inputs, over real held-out tokens; NaN where none are known."""
        found = self.measurements["density"]
        return float("nan") if found is None else float(found)


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
        raise InputError(
            f"'{folder}' was tuned by another version (schema {measurements.get('schema')}, this one reads {SCHEMA}); "
            "tune again into another folder, or install the version that made it"
        )
    return TuneResult(folder, load_tuning_file(folder / "tuning.yaml"), measurements)


@dataclass
class Built:
    """A model with a tuning's changes made.

    Parameters
    ----------
    net : torch.nn.Module
    changes : list of Change
        In the order in which they were made.
    decided : dict of str to Tensor
        What the changes chose from weights or data, by ``index.name``.
    """

    net: Any
    changes: list[Change]
    decided: dict[str, Any]

    def merged(self) -> Any:
        """Return the model as it is deployed; the last change is undone first."""
        net = self.net
        for change in reversed(self.changes):
            net = change.merge(net)
        return net


def build_model(
    model: str,
    task: str,
    labels: int,
    tuning: Tuning,
    decided: Decided | None = None,
    sample: Sample | None = None,
    start: Path | None = None,
    sites: Sequence[str] | None = None,
) -> Built:
    """Load a model and change it as the tuning says; all but heads and what the changes thaw is frozen.

    Parameters
    ----------
    model, task, labels
        As for `traces.models.load.load_model`.
    tuning : Tuning
        Its changes are made in order.
    decided : mapping, optional
        What the changes chose when this tuning was begun.
    sample : Sample, optional
        Training data to choose on, where nothing has been decided yet.
    start : Path, optional
        Folder of the finished tuning that this one begins with.
    sites : sequence of str, optional
        Patterns that name the down-projections of a family that is not in the table.

    Raises
    ------
    InputError
        If that one's down-projections were fitted to another activation function, or what it trained has no place
        here; or if the model's files lack the head of a language model, which is not trained.
    """
    if start is not None:
        _goes_on(open_result(start).tuning, tuning)
    needs_head = f"tuning for {task}" if task in LANGUAGE else ""
    net = load_model(model, task, labels, tuning.seed, needs_head, **dropout_fields(model, tuning.train.dropout))
    name_sites(net, sites)
    net.requires_grad_(False)
    for name in heads(net):
        net.get_submodule(name).requires_grad_(True)
    if sample is not None and sample.has_data and decided is None:
        _try(net, sample)
    changes = tuning.changes()
    choices: dict[str, Any] = {}
    for index, change in enumerate(changes):
        if sample is not None and decided is None:
            own = change.decide(net, sample) if start is None else _decide(change, index, net, sample, tuning, start)
        else:
            own = _own(decided, index)
        choices |= {f"{index}.{name}": tensor for name, tensor in own.items()}
        net = change.apply(net, task, own)
    return Built(net, changes, choices)


def _try(net: Any, sample: Sample) -> None:
    """Run one item, before choices are made on many: a model that cannot run says so in one line."""
    import torch

    with torch.no_grad():
        for batch in sample.batches(1, 1):
            with running(net, "a training item"):
                net(**batch.inputs)


def _goes_on(before: Tuning, tuning: Tuning) -> None:
    """Say at once, before choices that take minutes, that a tuning cannot go on from another one."""
    fitted = before.activation is not None and before.activation.refit is not None
    again = before.activation is not None and tuning.activation is not None and tuning.activation.refit is not None
    if before.activation != tuning.activation and (fitted or again):
        raise InputError(
            f"tuning '{tuning.name}' starts from '{before.name}', whose activation it does not share, and a refit of "
            "the down-projections belongs to one activation; give both the same, or start from one without"
        )
    was, now = before.module.model_dump(), tuning.module.model_dump()
    told = ("type",) if was["type"] != now["type"] else SIZES
    differ = [f"{name} {was[name]} and {now[name]}" for name in told if name in was and was[name] != now[name]]
    if differ and was["type"] != "none":
        raise InputError(
            f"tuning '{tuning.name}' starts from '{before.name}', whose weights do not fit its module "
            f"({', '.join(differ)}); give both the same module, or leave init_from out"
        )


def _decide(change: Change, index: int, net: Any, sample: Sample, tuning: Tuning, start: Path) -> Decided:
    """Let a change of a tuning that starts from another one decide: with the same activation, as that one did."""
    if not change.on_start:
        return change.decide(net, sample)
    before = open_result(start).tuning
    if before.activation == tuning.activation:
        return _own(read_tensors(start / DECIDED) if (start / DECIDED).is_file() else None, index)
    return change.decide(load_tuned(start)[0], sample)


def _own(decided: Decided | None, index: int) -> Decided:
    return {n.removeprefix(f"{index}."): t for n, t in (decided or {}).items() if n.startswith(f"{index}.")}


def dropout_fields(model: str, rate: float) -> dict[str, float]:
    """Return every dropout field that the model's configuration has, set to one rate."""
    from ..models.load import load_config

    known = load_config(model).to_dict()
    fields = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "resid_pdrop")
    more = ("embd_pdrop", "attn_pdrop", "activation_dropout", "seq_classif_dropout", "dropout_rate")
    return {name: rate for name in fields + more if name in known}


def save_weights(net: Any, folder: Path, model: str) -> None:
    """Write what was trained: adapters as `peft` writes them where it can, everything else by parameter name."""
    from safetensors.torch import save_file

    rest = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    if _peft_writes(net):
        import peft

        net.peft_config["default"].base_model_name_or_path = model  # not a path of this machine
        staging = folder / ".adapter"
        net.save_pretrained(staging, save_embedding_layers=False)
        for name in (ADAPTER, "adapter_config.json"):
            (staging / name).replace(folder / name)
        shutil.rmtree(staging)
        written = {t.data_ptr() for t in peft.get_peft_model_state_dict(net, save_embedding_layers=False).values()}
        rest = {name: p for name, p in rest.items() if p.data_ptr() not in written}
    if rest:
        tensors = {name: p.clone().contiguous().cpu() for name, p in rest.items()}
        write_atomic(folder / WEIGHTS, lambda p: save_file(tensors, p))


def _peft_writes(net: Any) -> bool:
    """Whether peft's own files hold these adapters whole: it drops the encoder of prompts and AdaLoRA's spare ranks."""
    config = getattr(net, "peft_config", {}).get("default")
    return config is not None and not config.is_prompt_learning and config.peft_type != "ADALORA"


def load_weights(net: Any, folder: Path, start: bool = False) -> None:
    """Load what a finished tuning trained into a model built by `build_model`.

    Parameters
    ----------
    net : torch.nn.Module
        In which what is trained requires gradients.
    folder : Path
        Of the finished tuning.
    start : bool
        The tuning begins there: it may train more than that one did (biases beside LoRA), which stays as it is.

    Raises
    ------
    CorruptError
        If a file is damaged.
    InputError
        If it belongs to another module or model.
    """
    import torch

    expected = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if _peft_writes(net):
        import peft

        own = peft.get_peft_model_state_dict(net, save_embedding_layers=False)
        tensors = _must_fit(folder / ADAPTER, own, read_tensors(folder / ADAPTER), start)
        written = {t.data_ptr() for t in own.values()}
        expected = {name: p for name, p in expected.items() if p.data_ptr() not in written}
        peft.set_peft_model_state_dict(net, tensors)
    if (expected and not start) or (folder / WEIGHTS).is_file():
        tensors = _must_fit(folder / WEIGHTS, expected, read_tensors(folder / WEIGHTS), start)
        with torch.no_grad():
            for name, tensor in tensors.items():
                expected[name].copy_(tensor)


def read_tensors(file: Path, key: str | None = None) -> dict[str, Any] | None:
    """Read a safetensors file; None where it states another key than the one asked for.

    Raises
    ------
    CorruptError
        If it is damaged or missing.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            if key is not None and (opened.metadata() or {}).get("key") != key:
                return None
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{file} cannot be read ({error}); tune again into an empty folder") from error


def _must_fit(
    file: Path, expected: dict[str, Any], tensors: dict[str, Any] | None, fewer: bool = False
) -> dict[str, Any]:
    tensors = tensors or {}
    wrong = sorted(set(tensors) - set(expected) if fewer else set(expected) ^ set(tensors))
    wrong += sorted(n for n in set(expected) & set(tensors) if expected[n].shape != tensors[n].shape)
    if wrong:
        raise InputError(f"{file} was made by another module or model: '{wrong[0]}' does not fit")
    return tensors


def load_tuned(path: str | Path, merge: bool = True) -> tuple[Any, TuneResult]:
    """Load a tuned model for inference.

    Parameters
    ----------
    path : str or Path
        A folder that `tune` made.
    merge : bool
        Fold the adapters into the weights where that is possible, so that they cost nothing at inference.

    Returns
    -------
    model : torch.nn.Module
    result : TuneResult
    """
    result = open_result(path)
    facts = result.measurements
    decided = read_tensors(result.path / DECIDED) if (result.path / DECIDED).is_file() else {}
    built = build_model(
        facts["model"], facts["task"], facts["labels"], result.tuning, decided, sites=facts.get("sites")
    )
    load_weights(built.net, result.path)
    return (built.merged() if merge else built.net).eval(), result
