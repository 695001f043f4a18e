"""What there is by kind and name, for people and for ``simkit show``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .errors import InputError, did_you_mean

KINDS = ("model", "dataset", "tuning")


def describe(kind: str, name: str) -> dict[str, Any]:
    """Return all that is known of a model, a data set or a tuning, as plain data.

    Raises
    ------
    InputError
        If the kind or the name is not known.
    FetchError
        If a packaged model cannot be downloaded.
    """
    if kind == "tuning":
        return _tuning(name)
    if kind == "model":
        return _model(name)
    if kind == "dataset":
        return _dataset(name)
    raise InputError(f"cannot describe '{kind}'{did_you_mean(kind, KINDS)}")


def _tuning(name: str) -> dict[str, Any]:
    from .tuning import load_tuning, methods

    tuning = load_tuning(name)
    method = asdict(methods()[tuning.method])
    facts = {"method": method.pop("name"), "title": tuning.title, **{k: v for k, v in method.items() if v}}
    parameters = {k: v for k, v in tuning.canonical().items() if k not in ("name", "title", "method")}
    return {"name": tuning.name, **facts, "hyperparameters": parameters, "hash": tuning.hash}


def _model(name: str) -> dict[str, Any]:
    from .loaders.packaged import MODELS
    from .models import load_config, load_model
    from .sites import find_sites, weight_shape

    config = load_config(name)
    entry = MODELS.get(name)
    model = load_model(name, entry.task if entry else "features")
    facts: dict[str, Any] = {"name": name, "family": config.model_type}
    if entry is not None:
        facts |= {"title": entry.title, "source": entry.source, "licence": entry.licence, "task": entry.task}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    try:
        facts["sites"] = {s.name: f"{s.module} (K {s.k}, N {s.n})" for s in find_sites(model)}
    except InputError as error:
        facts["sites"] = str(error)
    facts["linear_modules"] = {n: list(s) for n, m in model.named_modules() if (s := weight_shape(m)) is not None}
    return facts


def _dataset(name: str) -> dict[str, Any]:
    from .data import DATASETS, load_data

    data = load_data(name)
    facts: dict[str, Any] = {"name": name}
    entry = DATASETS.get(name)
    if entry is not None:
        facts |= {"title": entry.title, "source": entry.source, "licence": entry.licence}
    sizes = {"train": len(data.train), "held_out": len(data.test), "classes": list(data.classes)}
    return facts | sizes | data.details
