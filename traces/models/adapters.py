"""Adapter folders of the peft library that other tools trained: loaded whole, or refused by the weight at fault."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

from ..errors import InputError, library_errors
from .load import ADAPTER_CONFIG, load_model
from .weights import TRAINED, listed

FILES = ("adapter_model.safetensors", "adapter_model.bin")
TASKS = {
    "SEQ_CLS": "classification",
    "CAUSAL_LM": "causal-lm",
    "SEQ_2_SEQ_LM": "seq2seq",
    "FEATURE_EXTRACTION": "features",
}

logger = logging.getLogger(__name__)


def is_peft_folder(path: str | Path) -> bool:
    """Say whether a folder holds an adapter in peft's form and no tuning of this package."""
    folder = Path(path)
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "measurements.json").is_file()


def adapter_facts(path: str | Path, model: str) -> dict[str, Any]:
    """Return what a trace keeps of a peft adapter: a key, a name with its hyperparameters, and its task.

    Raises
    ------
    InputError
        If its files cannot be read.
    """
    config, file = _config(path), _file(path)
    base = str(config.base_model_name_or_path or "")
    if base and Path(base).name != Path(model).name:
        logger.warning("adapter '%s' was trained on '%s'; it is loaded into '%s'", path, base, model)
    digest = hashlib.sha256((Path(path) / ADAPTER_CONFIG).read_bytes() + file.read_bytes()).hexdigest()
    kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    sizes = {name: getattr(config, name) for name in ("r", "lora_alpha", "num_virtual_tokens") if hasattr(config, name)}
    module = {"type": kind} | sizes
    task = TASKS.get(str(getattr(config.task_type, "value", config.task_type)))
    measured = {"task": task} if task else {}
    return {
        "key": digest,
        "tuning": {"name": Path(path).resolve().name, "module": module, "hash": digest},
        "measurements": measured,
        "front": int(sizes.get("num_virtual_tokens") or 0),
    }


def load_adapter(path: str | Path, model: str, task: str, merge: bool = True, needs_head: str = "") -> Any:
    """Load a model with a peft adapter for inference.

    Parameters
    ----------
    path : str or Path
        Folder with ``adapter_config.json`` and ``adapter_model.safetensors``, or ``.bin``, read with
        ``weights_only=True``.
    model, task, needs_head
        As for `traces.models.load.load_model`.
    merge : bool
        Fold the adapter into the weights; virtual tokens stay in front.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    InputError
        If a weight of the adapter is missing, has no place in this model, or has another shape, or peft cannot make it.
    """
    import peft

    config, tensors = _config(path), _tensors(_file(path))
    heads = [t for name, t in tensors.items() if name.endswith((".out_proj.weight", *(f"{h}.weight" for h in TRAINED)))]
    heads = [t for t in heads if task == "classification" and t.dim() == 2]
    base = load_model(model, task, len(heads[-1]) if heads else None, needs_head=needs_head)
    config.inference_mode = True
    config.base_model_name_or_path = base.name_or_path  # peft warns of another one, as `adapter_facts` has by then
    remedy = "give the model that it was trained on with --model, and its task with --task"
    with warnings.catch_warnings(), library_errors(f"adapter '{path}' does not fit model '{model}'", remedy):
        # peft 0.21 asks for an attribute that transformers 5 has renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        # GPT-2's transposed layers: peft sets the field itself, layer by layer
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        net = peft.get_peft_model(base, config)
        expected = peft.get_peft_model_state_dict(net, save_embedding_layers=False)
    _check(path, model, expected, tensors, remedy)
    peft.set_peft_model_state_dict(net, tensors)
    if merge and not config.is_prompt_learning:
        with library_errors(f"adapter '{path}' cannot be merged", "record it unmerged: --no-merge, merge=False"):
            net = net.merge_and_unload(safe_merge=True)
    return net.eval()


def _check(path: str | Path, model: str, expected: dict[str, Any], tensors: dict[str, Any], remedy: str) -> None:
    missing, left = set(expected) - set(tensors), set(tensors) - set(expected)
    shapes = [n for n in sorted(set(expected) & set(tensors)) if expected[n].shape != tensors[n].shape]
    facts = [f"its file lacks {listed(missing)}"] if missing else []
    facts += [f"there is no place for {listed(left)}"] if left else []
    facts += [f"'{n}' is {tuple(tensors[n].shape)}, not {tuple(expected[n].shape)}" for n in shapes[:1]]
    if facts:
        raise InputError(f"adapter '{path}' does not fit model '{model}': {', and '.join(facts)}; {remedy}")


def _config(path: str | Path) -> Any:
    import peft

    with library_errors(f"cannot read '{path}/{ADAPTER_CONFIG}'", "give a folder that peft's save_pretrained wrote"):
        return peft.PeftConfig.from_pretrained(str(path))


def _file(path: str | Path) -> Path:
    found = next((Path(path) / name for name in FILES if (Path(path) / name).is_file()), None)
    if found is None:
        raise InputError(f"adapter '{path}' has no {FILES[0]}; give the folder that peft's save_pretrained wrote")
    return found


def _tensors(file: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    with library_errors(f"cannot read '{file}'", "save the adapter again"):
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return loaded
