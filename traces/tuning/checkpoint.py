"""State of a training run in one safetensors file: weights, optimiser, random state, log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CorruptError
from ..files import write_atomic

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save(
    path: Path, weights: dict[str, Any], optimizer: Any, meta: dict[str, Any], extra: dict[str, Any] | None = None
) -> None:
    """Write the state atomically.

    Parameters
    ----------
    path : Path
        The file.
    weights : dict of str to Parameter
        The trained parameters.
    optimizer : torch.optim.AdamW
        Its moments are kept.
    meta : dict
        Plain data: the step, the run's key, the log so far.
    extra : dict of str to Tensor, optional
        What else the run must go on with; names hold a colon.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {"rng": torch.get_rng_state()} | {name: t.detach().clone() for name, t in (extra or {}).items()}
    if torch.cuda.is_available():
        tensors["rng_cuda"] = torch.cuda.get_rng_state()
    for name, parameter in weights.items():
        tensors[f"weight:{name}"] = parameter.detach().clone()
        for moment in MOMENTS:
            if parameter in optimizer.state:
                tensors[f"{moment}:{name}"] = optimizer.state[parameter][moment].clone()
    write_atomic(path, lambda p: save_file(tensors, p, metadata={"run": json.dumps(meta)}))


def load(path: Path, weights: dict[str, Any], optimizer: Any, key: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Restore a state written by `save`; None where there is none or it belongs to another run.

    Returns
    -------
    meta, extra : dict
        As they were saved.

    Raises
    ------
    CorruptError
        If the file cannot be read, or lacks a weight.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta: dict[str, Any] = json.loads(file.metadata()["run"])
            if meta["key"] != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CorruptError(f"checkpoint {path} is damaged ({error}); delete it to start this tuning anew") from error
    lost = [n for n, p in weights.items() if getattr(tensors.get(f"weight:{n}"), "shape", None) != p.shape]
    if lost:
        raise CorruptError(f"checkpoint {path} does not hold '{lost[0]}' whole; delete it to start this tuning anew")
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(tensors[f"weight:{name}"])
            if f"exp_avg:{name}" in tensors:
                moments = {m: tensors[f"{m}:{name}"] for m in MOMENTS}
                optimizer.state[parameter] = {m: t if m == "step" else t.to(parameter) for m, t in moments.items()}
    torch.set_rng_state(tensors["rng"])
    if "rng_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng_cuda"])
    own = ("weight", *MOMENTS)
    extra = {name: t for name, t in tensors.items() if ":" in name and name.split(":")[0] not in own}
    return meta, extra
