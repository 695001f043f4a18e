"""Descriptions of models, data sets and tunings by name, for ``simkit show``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .errors import InputError, did_you_mean

KINDS = ("model", "dataset", "tuning")


def describe(kind: str, name: str) -> dict[str, Any]:
    """Return all that is known of a model, a data set or a tuning, as plain data.

    Parameters
    ----------
    kind : {"model", "dataset", "tuning"}
        What it is.
    name : str
        Packaged name; for a tuning also a YAML file, for a model and a data set also a local or hub name.

    Returns
    -------
    dict
        Plain data: what is installed, its source and licence, shapes, equation.

    Raises
    ------
    InputError
        If the kind or the name is not known.
    FetchError
        If a packaged model cannot be downloaded.

    Examples
    --------
    >>> traces.describe("tuning", "lora")["method"]
    'lora'
    """
    if kind == "tuning":
        return _tuning(name)
    if kind == "model":
        return _model(name)
    if kind == "dataset":
        return _dataset(name)
    raise InputError(f"cannot describe '{kind}'{did_you_mean(kind, KINDS)}")


def _tuning(name: str) -> dict[str, Any]:
    from .tuning import list_methods, load_tuning

    tuning = load_tuning(name)
    method = asdict(list_methods()[tuning.method])
    facts = {"method": method.pop("name"), "title": tuning.title, **{k: v for k, v in method.items() if v}}
    parameters = {k: v for k, v in tuning.canonical().items() if k not in ("name", "title", "method")}
    return {"name": tuning.name, **facts, "hyperparameters": parameters, "hash": tuning.hash}


def _model(name: str) -> dict[str, Any]:
    from .models.load import default_task, load_config, load_model
    from .models.loaders.packaged import MODELS
    from .recording.targets import places

    config = load_config(name)
    entry = MODELS.get(name)
    model = load_model(name, default_task(name))
    facts: dict[str, Any] = {"name": name, "family": config.model_type}
    if entry is not None:
        facts |= {"title": entry.title, "source": entry.source, "licence": entry.licence, "task": entry.task}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    linear = _linear(model)
    try:
        facts["sites"] = {s.name: f"{s.module} (K {s.k}, N {s.n})" for s in places(model)[1]}
    except InputError as error:
        facts["sites"] = str(error)
        # a down-projection reads the widest activation of a block that is there many times
        repeated = {pattern: shape for pattern, shape in linear.items() if "*" in pattern}
        widest = max((k for _, k, _ in repeated.values()), default=0)
        likely = [pattern for pattern, (_, k, n) in repeated.items() if k == widest > n]
        facts["name_sites_by_hand"] = [f"--site '{pattern}'" for pattern in likely]
    facts["linear_modules"] = {pattern: f"{m} x (K {k}, N {n})" for pattern, (m, k, n) in linear.items()}
    return facts


def _linear(model: Any) -> dict[str, tuple[int, int, int]]:
    """Linear modules as patterns with a star for each layer's number: how many there are, K and N."""
    from .models.sites import weight_shape

    found: dict[str, tuple[int, int, int]] = {}
    for name, module in model.named_modules():
        shape = weight_shape(module)
        if shape is not None:
            pattern = ".".join("*" if part.isdigit() else part for part in name.split("."))
            same = found.get(pattern, (0, *shape))[1:] == shape
            pattern = pattern if same else name
            found[pattern] = (found.get(pattern, (0,))[0] + 1, *shape)
    return found


def _dataset(name: str) -> dict[str, Any]:
    from .data.load import DATASETS, load_data

    data = load_data(name)
    facts: dict[str, Any] = {"name": name}
    entry = DATASETS.get(name)
    if entry is not None:
        facts |= {"title": entry.title, "source": entry.source, "licence": entry.licence}
    sizes = {"train": len(data.train), "held_out": len(data.test), "classes": list(data.classes)}
    return facts | sizes | data.details
