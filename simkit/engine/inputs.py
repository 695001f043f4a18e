"""Inputs of the verbs: a path, a name or an object, one or many."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hwmodels
from hwmodels import Arch, EnergyTable

from ..errors import InputError

if TYPE_CHECKING:
    from traces import Trace

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


def load_trace(path: PathLike) -> Trace:
    """Open a stored trace lazily.

    Parameters
    ----------
    path : str or path
        Local path or any fsspec URL.

    Returns
    -------
    Trace
        Attributes are read, masks when they are asked for.

    Raises
    ------
    InputError
        If there is no trace, or its schema is of another version.
    CorruptError
        If it was truncated or altered.

    Examples
    --------
    >>> trace = sk.load_trace("minilm_relu_small.zarr")
    >>> trace.n_tokens
    289
    """
    import traces

    trace = traces.open_trace(str(path))
    log.info("trace %s: %s real tokens, %s", trace.name, f"{trace.n_tokens:,}", trace.hash[:16])
    return trace


def arch(name: PathLike, **changes: Any) -> Arch:
    """Load an arch by name or YAML path.

    Parameters
    ----------
    name : str or path
        A name of `archs`, or a file ending in ``.yaml`` or ``.yml``.
    **changes
        Fields to change, as `Arch.with_` does: ``lanes=32``, ``memory__bandwidth="100 GB/s"``.

    Returns
    -------
    Arch
        The arch; with changes its name lists them.

    Raises
    ------
    InputError
        If the name is unknown, or the YAML has a wrong field, key or unit.

    Examples
    --------
    >>> sk.arch("cnvlutin", lanes=32).name
    'cnvlutin[lanes=32]'
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"no arch file at {path}; 'simkit ls archs' lists the names that ship")
        loaded = hwmodels.arch_from_yaml(_text_of(path), str(path))
    else:
        loaded = hwmodels.load_arch(text)
    return loaded.with_(**changes) if changes else loaded


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start:,} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot read the arch {path}: {error.strerror}; check the path") from None


def archs() -> list[str]:
    """List the archs that `arch` loads by name.

    Returns
    -------
    list of str
        Names in alphabetical order, those of installed packages among them.

    Examples
    --------
    >>> "cnvlutin" in sk.archs()
    True
    """
    return hwmodels.list_archs()


def tables() -> list[str]:
    """List the energy tables that ``table=`` takes by name.

    Returns
    -------
    list of str
        Names in alphabetical order.

    Examples
    --------
    >>> "default_45nm" in sk.tables()
    True
    """
    return hwmodels.list_tables()


def as_traces(given: Any) -> list[Trace]:
    """Open one trace or many.

    Parameters
    ----------
    given : path, Trace, or iterable of them
        What a verb or a figure was given as its traces.

    Raises
    ------
    InputError
        If there is none, or one is neither a path nor a trace.
    """
    # mappings and frames iterate over their keys
    single = (
        isinstance(given, (str, os.PathLike, Mapping)) or not isinstance(given, Iterable) or hasattr(given, "columns")
    )
    opened = [_as_trace(one) for one in ([given] if single else given)]
    if not opened:
        raise InputError("no trace is given; give at least one, as a path or from load_trace")
    return opened


def as_trace(given: Any) -> Trace:
    """Open a single trace; several are refused."""
    opened = as_traces(given)
    if len(opened) > 1:
        raise InputError(f"{len(opened)} traces are given where one is wanted; give a single one")
    return opened[0]


def _as_trace(given: Any) -> Trace:
    if isinstance(given, (str, os.PathLike)):
        return load_trace(given)
    if not (hasattr(given, "ops") and hasattr(given, "n_tokens")):
        raise InputError(f"{type(given).__name__} is not a trace; give a path, or what load_trace or record returned")
    trace: Trace = given
    return trace


def as_archs(given: Arch | PathLike | Iterable[Arch | PathLike]) -> list[Arch]:
    """Load one arch or many, each a name, a YAML path or an object.

    Raises
    ------
    InputError
        If there is none, a name is unknown, or one is neither a name nor an arch.
    """
    # an Arch iterates over its fields
    single = isinstance(given, (str, os.PathLike, Arch)) or not isinstance(given, Iterable)
    listed: Sequence[Any] = [given] if single else list(given)  # type: ignore[arg-type]
    if not listed:
        raise InputError("no arch is given; give at least one, 'simkit ls archs' lists the names")
    return [as_arch(one) for one in listed]


def as_arch(given: Any) -> Arch:
    """Load a single arch from a name, a YAML path or the object itself."""
    if isinstance(given, Arch):
        return given
    if isinstance(given, (str, os.PathLike)):
        return arch(given)
    raise InputError(f"{type(given).__name__} is not an arch; give a name, a YAML path, or what arch() returned")


def as_table(given: str | EnergyTable) -> EnergyTable:
    """Load an energy table from its name or the object itself."""
    return hwmodels.load_table(given) if isinstance(given, str) else given


def as_list(given: Any) -> list[Any]:
    """Make a list of one value or of an iterable of them; text is one value."""
    return [given] if isinstance(given, (str, os.PathLike)) or not isinstance(given, Iterable) else list(given)
