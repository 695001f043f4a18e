"""Slicing, merging and exporting traces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, did_you_mean
from ..files import write_atomic, write_json
from ..oplist.ops import OpSpec
from ..storage.arrays import COLUMNS, SiteMeta, array_key
from ..storage.bits import unpack
from ..storage.chunks import content_hash
from ..storage.masks import BLOCK_ROWS, StoredMask, StoredRows
from ..storage.store import Writer
from ..storage.trace import Trace, open_trace
from .foreign_formats import OUTPUTS, SITES, SYNTHETIC, WEIGHT

FORMATS = ("npz", "npy", "csv", "scalesim", "sparseloop")
FRESH = ("status", "rows", "capacity", "sites", "ones", "files", "checksum", "owner", "schema", "hash", "plan")


def slice_trace(
    trace: Trace,
    out: str | Path,
    sequences: int | None = None,
    first: int = 0,
    sites: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Trace:
    """Write a trace of some sequences and sites of another.

    Parameters
    ----------
    trace : Trace
        The source.
    out : str or Path
        Where the new one goes.
    sequences : int, optional
        How many sequences to keep, in ascending order of their number; all by default.
    first : int
        How many to pass over before.
    sites : sequence of str, optional
        Sites to keep; all by default. Ops of the others stay in the op list, without a mask. One expert's site keeps
        those of all experts beside it.
    storage_options : dict, optional
        Passed to fsspec.

    Returns
    -------
    Trace
        The new trace.

    Raises
    ------
    InputError
        If nothing would be left, or a site is not there.

    Examples
    --------
    >>> trace = traces.open_trace("minilm_relu_small.zarr")
    >>> list(traces.slice_trace(trace, "first.zarr", sequences=2, sites=["layers.0.down"]).sites)
    ['layers.0.down']
    """
    known = np.unique(trace.tokens["sequence"].to_numpy())
    wanted = known[first : None if sequences is None else first + sequences]
    if not len(wanted):
        raise InputError(f"trace '{trace.name}' has {len(known)} sequences; nothing is left after passing over {first}")
    chosen = list(trace.sites) if sites is None else sites
    names = list(dict.fromkeys((trace.site(name).source or trace.site(name).meta).name for name in chosen))
    keep = np.isin(trace.tokens["sequence"].to_numpy(), wanted)
    attrs = _inherited([trace]) | {"sliced": {"of": trace.hash, "sequences": len(wanted), "first": first}}
    return _write([(trace, keep, 0, 0)], names, attrs, str(out), storage_options)


def merge_traces(traces: Sequence[Trace], out: str | Path, storage_options: Mapping[str, Any] | None = None) -> Trace:
    """Write one trace of the rows of several, one after another; sequences and batches are numbered on.

    Parameters
    ----------
    traces : sequence of Trace
        Traces of the same sites and ops.
    out : str or Path
        Trace to write: local path or fsspec URL.
    storage_options : dict, optional
        Passed to fsspec.

    Returns
    -------
    Trace
        The merged trace.

    Raises
    ------
    InputError
        If there is none, or they differ in sites or ops.

    Examples
    --------
    >>> trace = traces.open_trace("minilm_relu_small.zarr")
    >>> halves = [traces.slice_trace(trace, f"half{i}.zarr", sequences=4, first=4 * i) for i in range(2)]
    >>> sum(half.n_tokens for half in halves) == traces.merge_traces(halves, "both.zarr").n_tokens
    True
    """
    if not traces:
        raise InputError("nothing to merge; give at least one trace")
    for other in traces[1:]:
        if other.root.sites != traces[0].root.sites or other.root.attrs["ops"] != traces[0].root.attrs["ops"]:
            raise InputError(f"'{other.path}' was recorded at other sites or of another model than '{traces[0].path}'")
    parts, sequence, batch = [], 0, 0
    for trace in traces:
        parts.append((trace, np.ones(trace.rows, dtype=bool), sequence, batch))
        sequence += int(trace.tokens["sequence"].max()) + 1 if trace.rows else 0
        batch += int(trace.tokens["batch"].max()) + 1 if trace.rows else 0
    attrs = _inherited(traces) | {"merged_from": [trace.hash for trace in traces]}
    return _write(parts, [meta.name for meta in traces[0].root.sites], attrs, str(out), storage_options)


def _inherited(traces: Sequence[Trace]) -> dict[str, Any]:
    attrs = {k: v for k, v in traces[0].root.attrs.items() if k not in FRESH}
    return attrs | {"synthetic": any(bool(t.root.attrs.get("synthetic")) for t in traces)}


Part = tuple[Trace, NDArray[np.bool_], int, int]


def _write(
    parts: Sequence[Part], names: Sequence[str], attrs: dict[str, Any], out: str, options: Mapping[str, Any] | None
) -> Trace:
    """Stream the kept rows of every part into a new trace."""
    source = parts[0][0]
    metas = [meta for meta in source.root.sites if meta.name in names]
    capacity = sum(int(np.count_nonzero(keep)) for _, keep, _, _ in parts)
    writer = Writer(out, capacity, metas, attrs, options=options)
    try:
        for meta in metas:
            if meta.weight:
                rows, k = meta.weight_shape
                writer.write_weight(meta.name, StoredMask(source, f"sites/{meta.name}/weight", rows, k).words())
        for part in parts:
            for columns, arrays in _rows(part, metas):
                writer.append(columns, arrays)
                writer.commit()
        writer.commit(status="complete", hash=content_hash(open_trace(out, options)))
    finally:
        writer.close()
    return open_trace(out, options)


def _rows(
    part: Part, metas: Sequence[SiteMeta]
) -> Iterator[tuple[dict[str, NDArray[np.int32]], dict[str, NDArray[Any]]]]:
    trace, keep, sequence, batch = part
    streams = {
        array_key(name): StoredRows(trace, name, trace.rows).blocks()
        for meta in metas
        for name in meta.rows_arrays(trace.rows)
    }
    shift = {"sequence": sequence, "batch": batch}
    for first in range(0, trace.rows, BLOCK_ROWS):
        kept = keep[first : first + BLOCK_ROWS]
        arrays = {key: next(stream)[kept] for key, stream in streams.items()}
        if kept.any():
            frame = trace.tokens.iloc[first : first + BLOCK_ROWS][kept]
            codes = {c: frame[c].cat.codes if c == "phase" else frame[c] for c in COLUMNS}
            yield {c: v.to_numpy().astype(np.int32) + np.int32(shift.get(c, 0)) for c, v in codes.items()}, arrays


def export_trace(trace: Trace, out: str | Path, format: str = "npz", real_only: bool = True) -> list[Path]:
    """Write a trace for another tool.

    Parameters
    ----------
    trace : Trace
        The source.
    out : str or Path
        A folder; ``npz`` writes one file of that name.
    format : {"npz", "npy", "csv", "scalesim", "sparseloop"}
        ``npz``: boolean arrays NAME and NAME_weight, and N as NAME_n. ``npy``: DNNsim's files ``act-NAME-0.npy``
        (M, K, 1, 1) and ``wgt-NAME.npy`` in float32, one and zero. ``csv``: a row of ones and zeros for each token.
        `import_masks` reads each of these and finds the same masks. ``scalesim``: a GEMM topology CSV, without masks.
        ``sparseloop``: a problem YAML for each site, with the density alone; lossy, and marked so.
    real_only : bool
        Leave out padding.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        If the format is not known.

    Examples
    --------
    >>> trace = traces.open_trace("minilm_relu_small.zarr")
    >>> [path.name for path in traces.export_trace(trace, "masks.npz")]
    ['masks.npz']
    """
    writers = {"npz": _npz, "npy": _dnnsim, "csv": _csv, "scalesim": _scalesim, "sparseloop": _sparseloop}
    if format not in writers:
        raise InputError(f"export format '{format}' is not known{did_you_mean(format, FORMATS)}")
    return writers[format](trace, Path(out), real_only)


def _arrays(trace: Trace, real_only: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, site in trace.sites.items():
        mask, weight = site.mask(real_only), site.weight_mask()
        yield name, mask.to_bool()
        yield f"{name}{OUTPUTS}", np.array(site.n)
        if weight is not None and site.op != "gate":
            yield f"{name}{WEIGHT}", weight.to_bool()


def _npz(trace: Trace, out: Path, real_only: bool) -> list[Path]:
    if not out.name:
        raise InputError(f"cannot write '{out}': it is a folder; name a file, e.g. '{out / 'trace.npz'}'")
    path = out if out.suffix == ".npz" else out.with_name(f"{out.name}.npz")

    def save(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            arrays: dict[str, Any] = dict(_arrays(trace, real_only))
            if trace.attrs.get("synthetic"):
                arrays[SYNTHETIC] = np.array(True)
            np.savez_compressed(handle, **arrays)

    write_atomic(path, save)
    return [path]


def _dnnsim(trace: Trace, out: Path, real_only: bool) -> list[Path]:
    paths = []
    for name, site in trace.sites.items():
        values = site.mask(real_only).to_bool().astype(np.float32)[:, :, None, None]
        paths.append(out / f"act-{name}-0.npy")
        _save(paths[-1], values)
        weight = site.weight_mask()
        if weight is not None and site.op != "gate":
            paths.append(out / f"wgt-{name}.npy")
            _save(paths[-1], weight.to_bool().astype(np.float32)[:, :, None, None])
    return [*paths, _outputs(trace, out)]


def _outputs(trace: Trace, out: Path) -> Path:
    """The sites in order, with their N: what no array of masks says."""
    facts = {
        "sites": {name: site.n for name, site in trace.sites.items()},
        SYNTHETIC: bool(trace.attrs.get("synthetic")),
    }
    write_json(out / SITES, facts)
    return out / SITES


def _csv(trace: Trace, out: Path, real_only: bool) -> list[Path]:
    paths = []
    for name, site in trace.sites.items():
        weight = site.weight_mask() if site.op != "gate" else None
        for stem, mask in ((name, site.mask(real_only)), (f"{name}{WEIGHT}", weight)):
            if mask is not None:
                paths.append(out / f"{stem}.csv")
                write_atomic(paths[-1], partial(_write_rows, mask=mask))
    return [*paths, _outputs(trace, out)]


def _write_rows(path: Path, mask: StoredMask) -> None:
    with path.open("wb") as handle:
        for block in mask.blocks():
            ones = unpack(block, mask.shape[1])
            text = np.full((len(ones), 2 * ones.shape[1]), ord(","), dtype=np.uint8)
            text[:, ::2] = ones + np.uint8(ord("0"))
            text[:, -1] = ord("\n")
            handle.write(text.tobytes())


def _save(path: Path, values: NDArray[Any]) -> None:
    def save(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            np.save(handle, values)

    write_atomic(path, save)


def _gemms(trace: Trace, real_only: bool) -> Iterable[OpSpec]:
    return (op for op in trace.ops(real_only) if op.kind == "gemm")


def _scalesim(trace: Trace, out: Path, real_only: bool) -> list[Path]:
    """SCALE-Sim's GEMM topology: layer name, M, N, K; a repeated GEMM is one line, its count in the name."""
    lines = ["Layer name, M, N, K,"]
    for i, op in enumerate(_gemms(trace, real_only)):
        times = f"_x{op.repeat}" if op.repeat > 1 else ""
        lines.append(f"{i}_{op.op}_{op.layer}{times}, {op.m}, {op.n}, {op.k},")
    path = out / f"{trace.name}_gemm.csv"
    write_atomic(path, lambda p: p.write_text("\n".join(lines) + "\n"))
    return [path]


def _sparseloop(trace: Trace, out: Path, real_only: bool) -> list[Path]:
    paths = []
    for op in _gemms(trace, real_only):
        if op.input_site is None:
            continue
        site = trace.sites[op.input_site]
        weight = site.weight_mask()
        dense = 1.0 if weight is None else weight.popcount() / (site.n * site.k)
        paths.append(out / f"{site.name}.yaml")
        text = _problem(op, site.density(real_only), dense, trace)
        write_atomic(paths[-1], lambda p, text=text: p.write_text(text))  # type: ignore[misc]
    return paths


def _problem(op: OpSpec, inputs: float, weights: float, trace: Trace) -> str:
    spaces = (("Weights", "[[[K]], [[N]]]"), ("Inputs", "[[[M]], [[K]]]"), ("Outputs", "[[[M]], [[N]]]"))
    kind = "SYNTHETIC trace" if trace.attrs.get("synthetic") else "trace"
    lines = [
        f"# LOSSY: of the recorded mask of {op.input_site} only its density is kept, as if zeros fell independently",
        f"# {kind} {json.dumps(trace.name)}, content hash {trace.hash}",
        "problem:",
        "  shape:",
        "    name: GEMM",
        "    dimensions: [M, K, N]",
        "    data-spaces:",
    ]
    for name, projection in spaces:
        lines += [f"    - name: {name}", f"      projection: {projection}"]
    lines[-1] += "\n      read-write: True"
    lines += ["  instance:", f"    M: {op.m}", f"    K: {op.k}", f"    N: {op.n}", "    densities:"]
    for name, value in (("Inputs", inputs), ("Weights", weights)):
        lines += [f"      {name}:", "        distribution: hypergeometric", f"        density: {value!r}"]
    return "\n".join(lines) + "\n"
