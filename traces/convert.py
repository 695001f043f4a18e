"""Bring masks in and take them out: NumPy, DNNsim's npy, SCALE-Sim's CSV, Sparseloop's problem YAML."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptError, InputError
from .files import file_digest
from .layout import SiteMeta
from .pack import pack
from .provenance import provenance
from .store import Writer, squeeze
from .trace import Trace, content_hash, open_trace

WEIGHT = "_weight"


def import_masks(
    npz: str | Path, out: str | Path, n: int | None = None, storage_options: Mapping[str, Any] | None = None
) -> Trace:
    """Make a trace of anybody's masks.

    Parameters
    ----------
    npz : str or Path
        NumPy archive. Each array NAME of shape (M, K) becomes a site; what differs from zero is a one. An array
        NAME_weight of shape (N, K) is its weight's mask.
    out : str or Path
        Trace to write: local path or fsspec URL.
    n : int, optional
        Outputs N of the sites that have no weight mask.
    storage_options : dict, optional
        Passed to fsspec.

    Returns
    -------
    Trace
        Every row counts as a real token of a sequence of its own.

    Raises
    ------
    InputError
        If an array is not two-dimensional, shapes disagree, N is not known, or a value is not finite.
    CorruptError
        If the archive cannot be read.
    """
    arrays = _read_npz(Path(npz))
    masks = {name: a for name, a in arrays.items() if not (name.endswith(WEIGHT) and name[: -len(WEIGHT)] in arrays)}
    rows = {a.shape[0] for a in masks.values()}
    if len(rows) > 1:
        sizes = ", ".join(f"{name} {a.shape[0]}" for name, a in masks.items())
        raise InputError(f"{npz}: arrays have different numbers of rows M ({sizes}); import them one by one")
    sites = [_site(str(npz), i, name, a, arrays.get(name + WEIGHT), n) for i, (name, a) in enumerate(masks.items())]
    m = rows.pop()
    attrs = {
        "model": {"name": Path(npz).stem, "family": "imported"},
        "tuning": {"name": "imported"},
        "data": {"name": Path(npz).name, "sha256": file_digest(Path(npz)), "sequences": m},
        "measurements": {},
        "provenance": provenance(),
        "synthetic": False,
        "ops": squeeze([]),
    }
    writer = Writer(str(out), m, sites, attrs, options=storage_options)
    try:
        for site in sites:
            if site.weight:
                writer.write_weight(site.name, pack(arrays[site.name + WEIGHT] != 0))
        writer.append(flat_columns(m), {site.name: pack(masks[site.name] != 0) for site in sites})
        writer.commit()
        writer.commit(status="complete", hash=content_hash(open_trace(str(out), storage_options)))
    finally:
        writer.close()
    return open_trace(str(out), storage_options)


def flat_columns(m: int) -> dict[str, NDArray[np.int32]]:
    """Token columns of M rows without sequence structure: each a real token of its own, in one pass."""
    zero = np.zeros(m, dtype=np.int32)
    return {
        "sequence": np.arange(m, dtype=np.int32),
        "position": zero,
        "batch": zero,
        "real": np.ones(m, dtype=np.int32),
        "phase": zero,
    }


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as handle:  # numpy leaves a file open that it finds damaged
            loaded = np.load(handle, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise InputError(f"{path} is a single .npy array; save it with numpy.savez(path, NAME=array)")
            arrays = {name: np.asarray(loaded[name]) for name in loaded.files}
    except FileNotFoundError as error:
        raise InputError(f"no file at '{path}'; give a NumPy .npz archive of arrays NAME (M, K)") from error
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise CorruptError(f"{path} is not a readable .npz archive ({error})") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}; arrays of Python objects are refused, save plain numbers") from error
    if not arrays:
        raise InputError(f"{path} holds no array; give arrays NAME of shape (M, K)")
    return arrays


def _site(file: str, index: int, name: str, mask: Any, weight: Any, n: int | None) -> SiteMeta:
    for label, array in ((name, mask), (name + WEIGHT, weight)):
        if array is not None and (array.ndim != 2 or 0 in array.shape):
            raise InputError(f"{file}: array '{label}' has shape {array.shape}, expected two dimensions above zero")
        if array is not None and array.dtype.kind not in "biuf":
            raise InputError(f"{file}: array '{label}' has dtype {array.dtype}, expected numbers or booleans")
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise InputError(f"{file}: array '{label}' has {bad} non-finite values; replace them first")
    if "/" in name or name in (".", ".."):
        raise InputError(f"{file}: array name '{name}' cannot name a site; use letters, digits, dots, underscores")
    if weight is None and n is None:
        raise InputError(f"{file}: N of '{name}' is not known; give --n, or an array '{name}{WEIGHT}' of shape (N, K)")
    if weight is not None and weight.shape[1] != mask.shape[1]:
        raise InputError(f"{file}: '{name}' has K = {mask.shape[1]}, but '{name}{WEIGHT}' has K = {weight.shape[1]}")
    if weight is not None and n is not None and weight.shape[0] != n:
        raise InputError(f"{file}: --n {n}, but '{name}{WEIGHT}' has N = {weight.shape[0]}; leave --n out")
    outputs = int(weight.shape[0]) if weight is not None else int(n or 0)
    if outputs < 1:
        raise InputError(f"--n {n}: must be at least 1")
    return SiteMeta(name, index, "down", int(mask.shape[1]), outputs, weight is not None)
