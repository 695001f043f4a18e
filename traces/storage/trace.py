"""A stored trace, read lazily: sites, masks, tokens, ops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from ..errors import CorruptError, InputError, did_you_mean
from ..oplist.ops import OpSpec, Shape, Template, expand, join
from .arrays import COLUMNS
from .chunks import StoredArrays, content_hash
from .masks import Site
from .store import unsqueeze

_BULKY = (
    "ones",
    "files",
    "sites",
    "ops",
    "ops_decode",
    "checksum",
    "owner",
    "schema",
    "rows",
    "capacity",
    "hash",
    "plan",
)


class Trace(StoredArrays):
    """A stored trace. Opening reads its attributes; masks are read when asked for.

    Parameters
    ----------
    path : str
        Local path or fsspec URL.
    options : dict, optional
        Passed to fsspec.

    Raises
    ------
    InputError
        If there is no trace, or its schema is another version.
    CorruptError
        If its attributes or an array's metadata were truncated or altered.

    Examples
    --------
    >>> trace = traces.open_trace("minilm_relu_small.zarr")
    >>> trace
    Trace('minilm_relu_small.zarr': 6 sites, 289 real tokens, complete)
    >>> trace.tokens.columns[0]
    'sequence'
    """

    def __repr__(self) -> str:
        kind = "synthetic, " * bool(self.root.attrs.get("synthetic"))
        return f"Trace({self.path!r}: {len(self.sites)} sites, {self.n_tokens} real tokens, {kind}{self.status})"

    def _repr_html_(self) -> str:
        """Origin and sites, for notebooks."""
        facts = [
            f"{named.get('name', '')}" if isinstance(named, dict) else str(named)
            for named in (self.attrs.get("model"), self.attrs.get("data"), self.attrs.get("tuning"))
            if named
        ]
        origin = ", ".join(facts) or "imported masks"
        rows = "".join(
            f"<tr><td>{escape(s.name)}</td><td>{s.op}</td><td>{s.k:,}</td><td>{s.n:,}</td><td>{s.density():.4f}</td></tr>"
            for s in self.sites.values()
        )
        heads = "".join(f"<th>{name}</th>" for name in ("site", "op", "K", "N", "density"))
        return (
            f"<p><b>{escape(self.name)}</b> {'<b>synthetic</b>, ' * bool(self.root.attrs.get('synthetic'))}"
            f"{escape(origin)}: {self.n_tokens:,} real tokens, "
            f"{escape(self.status)}</p><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    @property
    def status(self) -> str:
        """``complete``, or ``recording`` for what a stopped recorder left."""
        return str(self.root.attrs["status"])

    @property
    def attrs(self) -> dict[str, Any]:
        """Model, tuning, data, measurements, provenance, recorder, and ``synthetic`` where it is."""
        return {k: v for k, v in self.root.attrs.items() if k not in _BULKY}

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Sites by name, in execution order; of a mixture of experts, one for each expert."""
        found = {}
        for meta in self.root.sites:
            if not meta.experts:
                found[meta.name] = Site(self, meta)
            for expert in range(meta.experts):
                name = f"{meta.name}.{expert}.{meta.op}"
                alone = replace(meta, name=name, values="", experts=0, chosen=0)
                found[name] = Site(self, alone, meta, expert)
        return found

    def site(self, name: str) -> Site:
        """Return a site.

        Raises
        ------
        InputError
            If there is none of that name.
        """
        if name not in self.sites:
            raise InputError(f"trace '{self.name}' has no site '{name}'{did_you_mean(name, self.sites)}")
        return self.sites[name]

    def ops(self, real_only: bool = True, phase: str | None = None) -> list[OpSpec]:
        """Return every operation of the model over this trace.

        Parameters
        ----------
        real_only : bool
            Each sequence at its own length; otherwise as executed, padding included.
        phase : {"prefill", "decode"}, optional
            Only the prompts' passes, or only those of generated tokens; by default both, weights' rows summed.

        Returns
        -------
        list of OpSpec
        """
        self.selected(real_only, phase)
        if not unsqueeze(self.root.attrs["ops"]):
            return self._bare_ops(real_only)
        decodes = "ops_decode" in self.root.attrs
        prefill = self._phase_ops("ops", self._prompts(real_only), "prefill") if phase != "decode" else []
        decode = (
            self._phase_ops("ops_decode", self._steps(real_only), "decode") if decodes and phase != "prefill" else []
        )
        return [self._linked(one) for op in join(prefill, decode) for one in self._routed(op, real_only, phase)]

    def _linked(self, op: OpSpec) -> OpSpec:
        """Forget sites that this trace does not hold."""
        held = {name: getattr(op, name) for name in ("input_site", "output_site") if getattr(op, name) in self.sites}
        return replace(op, **({"input_site": None, "output_site": None} | held))

    def _routed(self, op: OpSpec, real_only: bool, phase: str | None) -> list[OpSpec]:
        """Split an op of a mixture of experts into one for each expert that any token went to."""
        meta = next((m for m in self.root.sites if m.experts and m.name == op.input_site), None)
        if meta is None:
            return [op]
        choice = self.choice(meta.name)[self.selected(real_only, phase)]
        # one past the last expert stands for none
        routed = np.bincount(choice.ravel(), minlength=meta.experts)[: meta.experts]
        if op.kind != "gemm":
            return [replace(op, m=round(op.m * int(routed.sum()) / max(1, choice.size)), input_site=None)]
        passes = max(1, round(op.m / op.tokens_per_pass))
        return [
            replace(
                op,
                m=int(rows),
                input_site=f"{meta.name}.{expert}.{meta.op}" if op.op == meta.op else None,
                weight_bytes=op.weight_bytes // meta.experts,
                tokens_per_pass=max(1, round(rows / passes)),
            )
            for expert, rows in enumerate(routed)
            if rows
        ]

    def _phase_ops(self, key: str, shapes: list[Shape], phase: str) -> list[OpSpec]:
        templates = [Template.from_dict(data) for data in unsqueeze(self.root.attrs[key])]
        rows = self.tokens[self.tokens["phase"] == phase]
        return expand(templates, shapes, passes=rows["batch"].nunique()) if len(rows) else []

    def _prompts(self, real_only: bool) -> list[Shape]:
        """(sequences, tokens) of what was run, with a decoder beside the encoder (sequences, tokens, target's tokens).

        Each sequence alone, or whole padded batches.
        """
        frame = self.tokens[self.tokens["phase"] != "decode"]
        if real_only:
            frame = frame[frame["real"]]
        order = ["encode", "prefill"] if (frame["phase"] == "encode").any() else ["prefill"]
        by = frame.groupby("sequence" if real_only else "batch", sort=True)
        many = by["sequence"].nunique()
        rows = [frame[frame["phase"] == phase].groupby(by.keys, sort=True).size() for phase in order]
        return [(int(many[i]), *(int(part.get(i, 0)) // int(many[i]) for part in rows)) for i in many.index]

    def _steps(self, real_only: bool) -> list[Shape]:
        """(sequences, keys) of each decoding pass; the keys are those in the cache and the token's own.

        With an encoder beside the decoder (sequences, the encoder's tokens, keys).
        """
        frame = self.tokens[self.tokens["phase"] == "decode"]
        if real_only:
            heard = self.tokens[(self.tokens["phase"] == "encode") & self.real].groupby("sequence").size()
            rows = zip(frame["sequence"], frame["position"], strict=True)
            return [(1, *heard.loc[[one]].tolist(), int(p) + 1) if len(heard) else (1, int(p) + 1) for one, p in rows]
        passes = 1 + int(self.root.attrs["new_tokens"])
        lengths = dict(zip(self._prompt_passes(), self._prompts(False), strict=True))
        prompts = [
            (g, lengths[int(index) // passes * passes], int(index) % passes)
            for index, g in frame.groupby("batch", sort=True)
        ]
        return [(len(g), *prompt[1:-1], prompt[-1] + step) for g, prompt, step in prompts]

    def _prompt_passes(self) -> list[int]:
        frame = self.tokens[self.tokens["phase"] == "prefill"]
        return [int(index) for index in np.unique(frame["batch"].to_numpy())]

    def _bare_ops(self, real_only: bool) -> list[OpSpec]:
        """Ops of imported masks: one GEMM a site."""
        rows = self.n_tokens if real_only else self.rows
        passes = max(1, self.tokens["batch"].nunique())
        return [
            OpSpec(s.op, s.layer, "gemm", rows, s.k, s.n, input_site=s.name, tokens_per_pass=max(1, rows // passes))
            for s in self.sites.values()
        ]

    def verify(self) -> None:
        """Read everything and compare with checksums, counts of ones, and the content hash.

        Raises
        ------
        CorruptError
            Naming what is missing, truncated or altered.
        """
        found = content_hash(self)
        stored = self.root.attrs.get("hash")
        if stored and stored != found:
            raise CorruptError(f"{self.path}: content hash is {found}, {stored} was recorded; record the trace anew")

    def to_xarray(self, site: str | None = None) -> Any:
        """Return a site's packed mask (or all sites') as a lazily loaded xarray Dataset.

        Dimensions ``token`` and ``word_K``; the token columns are coordinates.
        """
        import xarray as xr

        names = [n for n, s in self.sites.items() if s.source is None] if site is None else [self.site(site).name]
        coords = {c: ("token", self.tokens[c].to_numpy()) for c in COLUMNS}
        data = {}
        for name in names:
            group = xr.open_zarr(self._store, group=f"sites/{name}", consolidated=False, chunks=None)
            mask = group["mask"].isel(token=slice(0, self.rows))
            data[name] = mask.rename(word=f"word_{self.sites[name].k}")
        return xr.Dataset(data, coords=coords, attrs={"hash": self.hash, "name": self.name})


def open_trace(path: str, storage_options: Mapping[str, Any] | None = None) -> Trace:
    """Open a trace lazily.

    Parameters
    ----------
    path : str or Path
        Local path or any fsspec URL.
    storage_options : dict, optional
        Passed to fsspec.

    Returns
    -------
    Trace
        Attributes are read, masks when they are asked for.

    Raises
    ------
    InputError
        If there is none, or its schema is another version.
    CorruptError
        If it was truncated or altered.

    Examples
    --------
    >>> traces.open_trace("minilm_relu_small.zarr").n_tokens
    289
    """
    return Trace(str(path), storage_options)
