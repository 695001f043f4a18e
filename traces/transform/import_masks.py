"""Importing masks from other tools."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, did_you_mean
from ..files import file_digest
from ..provenance import provenance
from ..storage.arrays import SiteMeta
from ..storage.bits import pack
from ..storage.chunks import content_hash
from ..storage.masks import BLOCK_ROWS
from ..storage.store import Writer, squeeze
from ..storage.trace import Trace, open_trace
from .foreign_formats import WEIGHT, Foreign, read_foreign

log = logging.getLogger(__name__)
ONE_BY_ONE = "choose by name what belongs together: --site NAME (sites=['NAME'])"


def import_masks(
    masks: str | Path,
    out: str | Path,
    n: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    sites: str | Sequence[str] | None = None,
    header: bool | None = None,
    index: bool | None = None,
) -> Trace:
    """Import masks from another tool as a trace.

    Parameters
    ----------
    masks : str or Path
        A NumPy ``.npz`` archive: each array NAME of shape (M, K) becomes a site, an array NAME_weight of shape (N, K)
        is its weight's mask, a number NAME_n its N. In the same way the tensors of a ``.safetensors`` file, and of a
        ``.pt`` or ``.pth`` file (one tensor, or a dictionary; loaded with ``weights_only=True``). Or a SciPy sparse
        matrix (``save_npz``); a ``.npy`` array, (M, K) or DNNsim's (M, K, 1, 1); a CSV with a row for each token; or a
        folder of .npy and .csv files, DNNsim's ``act-NAME-I.npy`` and ``wgt-NAME.npy`` among them.
        What differs from zero is a one; values that are not finite are refused.
    out : str or Path
        Trace to write: local path or fsspec URL.
    n : int, optional
        Outputs N of the sites for which nothing else says it.
    storage_options : dict, optional
        Passed to fsspec.
    sites : str or sequence of str, optional
        Only the arrays of these names, wildcards allowed; needed where others have no (M, K) or another M.
    header, index : bool, optional
        Whether line 1 of a CSV is a header and its column 1 an index. Where left out, the rule of
        `traces.transform.mask_tables` decides; what it takes for one is said on stderr, what it leaves open is refused.

    Returns
    -------
    Trace
        Every row counts as a real token of a sequence of its own.

    Raises
    ------
    InputError
        If an array is not two-dimensional, shapes disagree, N is not known, or a value is not finite.
    CorruptError
        If a file cannot be read.

    Examples
    --------
    >>> masks = np.random.default_rng(0).random((8, 64)) < 0.25
    >>> np.savez("masks.npz", down=masks, down_n=16)
    >>> trace = traces.import_masks("masks.npz", "imported.zarr")
    >>> trace.sites["down"].density() == float(masks.mean())
    True
    """
    path = Path(masks).expanduser()
    found = _chosen(str(masks), read_foreign(path, header, index), [sites] if isinstance(sites, str) else sites)
    flat = ", ".join(f"'{name}' has shape {a.shape}" for name, a in found.masks.items() if a.ndim != 2)
    if flat:
        raise InputError(f"{masks}: array {flat}, expected two dimensions above zero, (M, K); {ONE_BY_ONE}")
    rows = {a.shape[0] for a in found.masks.values()}
    if len(rows) > 1:
        sizes = ", ".join(f"{name} {a.shape[0]}" for name, a in found.masks.items())
        raise InputError(f"{masks}: arrays have different numbers of rows M ({sizes}); {ONE_BY_ONE}")
    metas = [_site(str(masks), i, name, found, n) for i, name in enumerate(found.masks)]
    m = rows.pop()
    digest = {"sha256": file_digest(path)} if path.is_file() else {}
    attrs = {
        "model": {"name": path.stem, "family": "imported"},
        "tuning": {"name": "imported"},
        "data": {"name": path.name, **digest, "sequences": m},
        "measurements": {},
        "provenance": provenance(),
        "synthetic": found.synthetic,
        "ops": squeeze([]),
    }
    writer = Writer(str(out), m, metas, attrs, options=storage_options)
    try:
        for site in metas:
            if site.weight:
                writer.write_weight(site.name, pack(found.weights[site.name] != 0))
        columns = flat_columns(m)
        for first in range(0, m, BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            ones = {site.name: pack(found.masks[site.name][part] != 0) for site in metas}
            writer.append({name: values[part] for name, values in columns.items()}, ones)
            writer.commit()
        writer.commit(status="complete", hash=content_hash(open_trace(str(out), storage_options)))
    finally:
        writer.close()
    made = open_trace(str(out), storage_options)
    full = [name for name, site in made.sites.items() if site.density() == 1.0]
    if full:  # such as a mask of -1 and 1
        log.warning("%s: %s no zero: what differs from zero is a one", masks, _hold(full))
    return made


def _hold(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) + (" holds" if len(names) == 1 else " hold")


def _chosen(file: str, found: Foreign, patterns: Sequence[str] | None) -> Foreign:
    """Keep the masks that were asked for."""
    if patterns is None:
        return found
    kept: dict[str, NDArray[Any]] = {}
    for pattern in patterns:
        names = [name for name in found.masks if name == pattern or fnmatchcase(name, pattern)]
        if not names:
            raise InputError(f"{file}: no array '{pattern}'{did_you_mean(pattern, found.masks)}")
        kept |= {name: found.masks[name] for name in names}
    return found._replace(masks={name: array for name, array in found.masks.items() if name in kept})


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


def _site(file: str, index: int, name: str, found: Foreign, n: int | None) -> SiteMeta:
    mask, weight, said = found.masks[name], found.weights.get(name), found.outputs.get(name)
    for label, array in ((name, mask), (name + WEIGHT, weight)):
        if array is not None and (array.ndim != 2 or 0 in array.shape):
            raise InputError(f"{file}: array '{label}' has shape {array.shape}, expected two dimensions above zero")
        if array is not None and array.dtype.kind not in "biuf":
            raise InputError(f"{file}: array '{label}' has dtype {array.dtype}, expected numbers or booleans")
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise InputError(f"{file}: array '{label}' has {bad} non-finite values; replace them first")
    if "/" in name or name in ("", ".", "..", "zarr.json"):
        raise InputError(f"{file}: array name '{name}' cannot name a site; use letters, digits, dots, underscores")
    if weight is None and n is None and said is None:
        raise InputError(f"{file}: N of '{name}' is not known; give --n, or an array '{name}{WEIGHT}' of shape (N, K)")
    if weight is not None and weight.shape[1] != mask.shape[1]:
        raise InputError(f"{file}: '{name}' has K = {mask.shape[1]}, but '{name}{WEIGHT}' has K = {weight.shape[1]}")
    if weight is not None and n is not None and weight.shape[0] != n:
        raise InputError(f"{file}: --n {n}, but '{name}{WEIGHT}' has N = {weight.shape[0]}; leave --n out")
    outputs = int(weight.shape[0]) if weight is not None else int(n if n is not None else said or 0)
    if outputs < 1:
        raise InputError(f"--n {outputs}: must be at least 1")
    return SiteMeta(name, index, "down", int(mask.shape[1]), outputs, weight is not None)
