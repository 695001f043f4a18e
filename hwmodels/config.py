"""YAML in, frozen objects out: unknown and duplicate keys are errors that name file, line and field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from . import units
from .errors import InputError, nearest

Status = Literal["measured", "published", "assumed"]


class Frozen(BaseModel):
    """Base of every configuration object: immutable, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Frozen):
    """A number with its origin.

    Parameters
    ----------
    value : int, float, str or list
        Plain number in the field's unit; in YAML a quantity is text with a unit.
    source : str
        Key of ``references.bib``, or a short description for an assumption.
    status : {"measured", "published", "assumed"}
        How well the number is known.
    low, high : optional
        Range, same unit as `value`.
    note : str
        Why, where it is not plain.
    """

    value: Any
    source: str
    status: Status
    low: float | None = None
    high: float | None = None
    note: str = ""


def _with_unit(dimension: str) -> Callable[[object], object]:
    def convert(raw: object) -> object:
        if not isinstance(raw, dict):
            return raw
        out = dict(raw)
        for key in ("value", "low", "high"):
            if out.get(key) is not None and not isinstance(out[key], float):
                out[key] = units.parse(out[key], dimension)
        return out

    return convert


# A figure whose value is text with a unit in YAML and a float in the unit of `units.UNIT_OF` inside.
Clock = Annotated[Figure, BeforeValidator(_with_unit("clock"))]
Time = Annotated[Figure, BeforeValidator(_with_unit("time"))]
Node = Annotated[Figure, BeforeValidator(_with_unit("node"))]
Bandwidth = Annotated[Figure, BeforeValidator(_with_unit("bandwidth"))]
Size = Annotated[Figure, BeforeValidator(_with_unit("size"))]
Energy = Annotated[Figure, BeforeValidator(_with_unit("energy"))]
Power = Annotated[Figure, BeforeValidator(_with_unit("power"))]
Area = Annotated[Figure, BeforeValidator(_with_unit("area"))]

Model = TypeVar("Model", bound=BaseModel)


def from_yaml(model: type[Model], text: str, where: str) -> Model:
    """Read one configuration object.

    Parameters
    ----------
    model : type
        pydantic model to build.
    text : str
        YAML.
    where : str
        File name for error messages.

    Returns
    -------
    Model
        The validated object.

    Raises
    ------
    InputError
        On a YAML error, a duplicate or unknown key, a missing field or a wrong unit: ``file:line: field: what``.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    tree: Any
    try:
        tree = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{where}:{line}: {str(error.problem).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{where}:1: expected a mapping of fields, found {type(tree).__name__}")
    try:
        return model.model_validate(_plain(tree))
    except ValidationError as error:
        errors = error.errors()
        # a mistyped field is both unknown and missing; the unknown one says more
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        path = [part for part in first["loc"] if not str(part).startswith("function-")]
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown field" + nearest(str(path[-1]), _fields_at(model, path[:-1]))
        elif first["type"] == "missing":
            message = "field is missing; add it"
        raise InputError(f"{where}:{_line(tree, path)}: {'.'.join(map(str, path))}: {message}") from None


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        inner = getattr(field, "annotation", None) if field else None
        candidates = [inner, *getattr(inner, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(model.model_fields)


def _line(tree: Any, path: list[Any]) -> int:
    line = 0
    for part in path:
        try:
            line = (tree.lc.key if hasattr(tree, "keys") else tree.lc.item)(part)[0]
            tree = tree[part]
        except (KeyError, IndexError, AttributeError, TypeError):
            break
    return int(line) + 1


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (str, int, float):
        if isinstance(node, kind):
            return kind(node)
    return node


def content_hash(model: BaseModel) -> str:
    """Identity of a configuration: SHA-256 over its canonical JSON, first 16 hex digits."""
    text = json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def packaged(folder: str) -> dict[str, str]:
    """Return the YAML texts that ship in a folder of this package, by stem."""
    files = resources.files("hwmodels").joinpath(folder).iterdir()
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in sorted(files, key=lambda f: f.name)
        if file.name.endswith(".yaml")
    }
