"""YAML in, frozen objects out: unknown and duplicate keys are errors that name file, line and field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cached_property, lru_cache
from importlib import resources
from types import FunctionType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, model_validator

from . import units
from .errors import InputError, nearest

Status = Literal["measured", "published", "assumed"]


class Frozen(BaseModel):
    """Base of every configuration object: immutable, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __dir__(self) -> list[str]:
        # tab completion: fields and own methods, without the forty names of pydantic
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, Frozen)]
        own = {name for kind in kinds for name, value in vars(kind).items() if isinstance(value, _METHODS)}
        return sorted({*type(self).model_fields, *(name for name in own if not name.startswith(("_", "model_")))})


_METHODS = (FunctionType, property, cached_property)


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

    @model_validator(mode="after")
    def _range_holds_the_value(self) -> Figure:
        stated = (self.low, self.high) != (None, None)
        if stated and isinstance(self.value, int | float) and not isinstance(self.value, bool):
            low, high = (self.value if end is None else end for end in (self.low, self.high))
            if not low <= self.value <= high:
                raise ValueError(f"value {self.value:g} is not from low = {low:g} to high = {high:g}")
        return self


# Validation context of text that people wrote: a number without a unit is refused there. What was validated once is
# plain floats, and comes back so from JSON.
WRITTEN = {"written": True}


def _with_unit(dimension: str) -> Callable[[object, ValidationInfo], object]:
    def convert(raw: object, info: ValidationInfo) -> object:
        if not isinstance(raw, dict):
            return raw
        out = dict(raw)
        for key in ("value", "low", "high"):
            given = out.get(key)
            if given is None:
                continue
            if isinstance(given, float) and not info.context:
                units.check(given, dimension)
            else:
                out[key] = units.parse(given, dimension)
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
Voltage = Annotated[Figure, BeforeValidator(_with_unit("voltage"))]

Model = TypeVar("Model", bound=BaseModel)


def from_yaml(
    model: type[Model],
    text: str,
    where: str,
    check: Callable[[Model], Iterable[tuple[list[Any], str]]] | None = None,
) -> Model:
    """Read one configuration object.

    Parameters
    ----------
    model : type
        pydantic model to build.
    text : str
        YAML.
    where : str
        File name for error messages.
    check : callable, optional
        Looks at the validated object for what its fields alone do not tell: yields paths and messages.

    Returns
    -------
    Model
        The validated object.

    Raises
    ------
    InputError
        On a YAML error, a duplicate or unknown key, a missing field or a wrong unit: one line a fault,
        ``file:line: field: what``.
    """
    tree = read_yaml(text, where)
    if not isinstance(tree, dict):
        raise InputError(f"{where}:1: expected a mapping of fields, found {type(tree).__name__}")
    data = _plain(tree)
    try:
        made = model.model_validate(data, context=WRITTEN)
    except ValidationError as error:
        found = faults(error, model)
    else:
        found = list(check(made)) if check is not None else []
        if not found:
            return made
    lines = sorted({(_line(tree, path), ".".join(map(str, path)), message) for path, message in found})
    raise InputError("\n".join(f"{where}:{line}: {name}: {message}" for line, name, message in lines))


def read_yaml(text: str, where: str) -> Any:
    """Load YAML from any source: aliases that multiply, deep nesting and what cannot be read end in one line.

    Parameters
    ----------
    text : str
        YAML.
    where : str
        File name for error messages.

    Returns
    -------
    mapping, list or scalar
        As ruamel's round-trip loader gives it, with line numbers.

    Raises
    ------
    InputError
        On a YAML error, a duplicate key, or a limit.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > LONGEST_YAML:
        raise InputError(f"{where}: {len(text):,} characters; at most {LONGEST_YAML:,} are read")
    loader = YAML(typ="rt", pure=True)
    loader.Composer = _limited_composer()
    try:
        return loader.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{where}:{line}: {str(error.problem).splitlines()[0]}") from None
    # whole numbers of thousands of digits, dates that do not exist, control characters
    except (YAMLError, ValueError, OverflowError, RecursionError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{where}: not YAML that can be read ({reason}); write plain text as UTF-8") from None


LONGEST_YAML = 1_000_000
# nesting, and nodes with every alias written out: 100 times what an arch has
DEEPEST_YAML, MOST_NODES = 40, 100_000


@lru_cache(maxsize=1)
def _limited_composer() -> Any:
    """Composer that stops at nesting and aliases without bound, before anything is built from them."""
    from ruamel.yaml.composer import Composer, ComposerError
    from ruamel.yaml.events import AliasEvent

    class Limited(Composer):  # type: ignore[misc, unused-ignore]
        def __init__(self, loader: Any = None):
            super().__init__(loader=loader)
            self.depth = self.nodes = 0
            self.sizes: dict[int, int] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.parser.peek_event()
            before, alias = self.nodes, isinstance(event, AliasEvent)
            if alias and event.anchor in self.anchors:
                size = self.sizes.get(id(self.anchors[event.anchor]))
                if size is None:
                    raise ComposerError(None, None, f"alias '{event.anchor}' contains itself", event.start_mark)
                self.nodes += size
            self.nodes += not alias
            self.depth += 1
            if self.depth > DEEPEST_YAML:
                raise ComposerError(None, None, f"nested more than {DEEPEST_YAML} levels deep", event.start_mark)
            if self.nodes > MOST_NODES:
                raise ComposerError(None, None, f"more than {MOST_NODES:,} values, aliases counted", event.start_mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            self.sizes.setdefault(id(node), self.nodes - before)
            return node

    return Limited


def faults(error: ValidationError, model: type[BaseModel]) -> list[tuple[list[Any], str]]:
    """Say all that pydantic found wrong, each as where and what.

    A mistyped field is both unknown and missing: the unknown one says more, and stands alone. Of the branches of a
    union, those that another branch fits better are left out.
    """
    errors = error.errors()
    told = []
    unknown: list[tuple[Any, ...]] = [e["loc"] for e in errors if e["type"] == "extra_forbidden"]
    branches = {"str", "int", "float", "bool"}
    for one in errors:
        place, message = one["loc"], str(one["msg"]).removeprefix("Value error, ")
        path = [part for part in place if not str(part).startswith("function-")]
        if one["type"] == "missing":
            beside = [str(loc[-1]) for loc in unknown if loc[:-1] == place[:-1]]
            if get_close_matches(str(place[-1]), beside, cutoff=0.5):
                continue
            message = "field is missing; add it"
        elif one["type"] == "extra_forbidden":
            message = "unknown field" + nearest(str(path[-1]), _fields_at(model, path[:-1]))
        elif place and place[-1] in branches and any(_inside(e["loc"], place) for e in errors):
            continue
        told.append((path, message))
    return told


def _inside(place: tuple[Any, ...], branch: tuple[Any, ...]) -> bool:
    """Whether a fault lies within a model that stands beside a plain type in a union."""
    depth = len(branch) - 1
    return place[:depth] == branch[:depth] and len(place) > depth + 1 and str(place[depth])[:1].isupper()


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """List the fields of the model at a place: a field, an index or key within it, or a branch of a union."""
    found: list[type[BaseModel]] = [model]
    for part in path:
        inner = [one for one in found if part in one.model_fields]
        if inner:
            found = [kind for one in inner for kind in _models_in(one.model_fields[part].annotation)]
        else:
            found = [one for one in found if one.__name__ == part] or found
    return [name for one in found for name in one.model_fields]


def _models_in(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [one for part in get_args(kind) for one in _models_in(part)]


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


def content_hash(model: BaseModel, exclude: set[str] | None = None) -> str:
    """Identity of a configuration: SHA-256 over its canonical JSON less some fields, first 16 hex digits."""
    text = json.dumps(model.model_dump(mode="json", exclude=exclude), sort_keys=True, separators=(",", ":"))
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
