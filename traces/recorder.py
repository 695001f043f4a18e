"""Record which activations of a model are zero, batch by batch, into a store.

The batches are planned before the first one runs, so a stopped recording goes on at the batch after the last commit and
ends with the same bits as an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .batches import Batch, sorted_order
from .data import Split, load_data
from .errors import InputError, NumericError
from .folder import Folder
from .inputs import prepare
from .layout import SiteMeta
from .models import default_task, load_model
from .passes import decode_probe, prompt_probe, run_batch, virtual_tokens
from .probe import probe_ops
from .provenance import provenance
from .sites import MLPSite, find_sites, gate_sites
from .store import Writer, read_root, squeeze
from .tap import SiteTap, parse_variants
from .trace import Trace, content_hash, open_trace

COMMIT_SECONDS = 5.0
COMMIT_BYTES = 64 << 20
PROBES = ((2, 7), (3, 11))  # four different primes, so that no dimension is mistaken for another


def record(
    model: str = "minilm-l6",
    adapter: str | Path | None = None,
    data: str = "vader-movie",
    limit: int = 256,
    out: str | Path = "trace.zarr",
    batch_size: int = 32,
    max_length: int = 64,
    merge: bool = True,
    task: str | None = None,
    new_tokens: int = 0,
    thresholds: Sequence[float] = (),
    int8: bool = False,
    histogram: bool = False,
    sites: str | Sequence[str] | None = None,
    text: str | None = None,
    label: str | None = None,
    allow_non_finite: bool = False,
    progress: bool = True,
    storage_options: dict[str, Any] | None = None,
) -> Trace:
    """Record a model's MLP activation masks over held-out data.

    Parameters
    ----------
    model : str
        Packaged, local or hub name; with `adapter` it must be the tuned model's own.
    adapter : str or Path, optional
        Folder of a tuning made by `tune`.
    data : str
        Packaged, local or hub data set; its held-out split is used.
    limit : int
        Sequences.
    out : str or Path
        Local path or fsspec URL.
    batch_size, max_length : int
        Sequences in a forward pass, and tokens kept of each.
    merge : bool
        Fold adapters into the weights; otherwise their GEMMs are among the ops.
    task : str, optional
        Which head to load (`traces.models.TASKS`); the tuning's or the model's own by default.
    new_tokens : int
        Passes that decode one token a sequence with a KV cache, after the prompt's; for causal language models.
    thresholds : sequence of float
        Also record where ``|a|`` exceeds each.
    int8 : bool
        Also record what is not zero after symmetric quantisation of each token to 8 bits.
    histogram : bool
        Also count magnitudes by powers of two, kept in the trace's attributes.
    sites : str or sequence of str, optional
        Module patterns, for a model whose family is not in the table.
    text, label : str, optional
        Columns of a file or hub data set.
    allow_non_finite : bool
        Count NaN and infinity as non-zeros in place of stopping.
    progress : bool
        Show a progress bar on stderr.
    storage_options : dict, optional
        Passed to fsspec.

    Returns
    -------
    Trace

    Raises
    ------
    InputError
        On unknown names, fewer held-out sequences than `limit`, or an `out` that holds another recording.
    NumericError
        If an activation is not finite.
    StorageError
        If the disk is full or another process writes there; what was finished is kept.
    """
    content = load_data(data, text=text or "text", label=label or ("label" if text is None else None))
    if limit < 1 or limit > len(content.test):
        raise InputError(f"--limit {limit}: data set '{data}' has {len(content.test)} held-out sequences")
    if new_tokens < 0:
        raise InputError(f"new_tokens {new_tokens}: must not be negative")
    split = content.test.head(limit)
    facts: dict[str, Any] = {
        "model": {"name": model},
        "data": {"name": data, "split": "held-out", "sequences": limit, "max_length": max_length},
        "batch_size": batch_size,
        "merged": merge,
        "task": _task(model, adapter, task, new_tokens),
        "new_tokens": new_tokens,
        "variants": parse_variants(thresholds, int8),
        "histograms": {} if histogram else None,
    }
    session = _Session(facts, str(out), split, adapter, sites, allow_non_finite, progress, storage_options)
    return session.run()


class _Session:
    """One recording; its attributes are what planning, running and finishing share."""

    def __init__(
        self,
        facts: dict[str, Any],
        out: str,
        split: Split,
        adapter: str | Path | None,
        sites: str | Sequence[str] | None,
        allow_non_finite: bool,
        progress: bool,
        options: dict[str, Any] | None,
    ) -> None:
        self.out, self.options, self.progress, self.allow = out, options, progress, allow_non_finite
        self.facts = facts
        name = facts["model"]["name"]
        self.tuned = _tuned(name, adapter)
        if facts["task"] != "seq2seq":  # where labels are what the decoder reads; elsewhere they change no activation
            split = replace(split, labels=None)
        self.inputs = prepare(name, facts["task"], split, facts["data"]["max_length"])
        self.adapter, self.patterns = adapter, sites
        self.order = sorted_order(self.inputs.lengths, facts["batch_size"])
        self.new_tokens = int(facts["new_tokens"])
        self.plan = self._plan_key()

    def _plan_key(self) -> str:
        """SHA-256 of all that decides the trace's content."""
        digest = hashlib.sha256(self.inputs.fingerprint())
        key = self.tuned["key"] if self.tuned else None
        digest.update(json.dumps([self.facts, key, self.patterns], sort_keys=True).encode())
        return digest.hexdigest()

    def run(self) -> Trace:
        done = self._already()
        if done is not None and done.status == "complete":
            return done
        model = self._load()
        sites, front = find_sites(model, self.patterns), virtual_tokens(model)
        attrs = {}
        if done is None:
            attrs = self._attrs(model)
            for key, probe in (("ops", prompt_probe), ("ops_decode", decode_probe))[: 1 + bool(self.new_tokens)]:
                shapes = [(batch, front + length) for batch, length in PROBES]
                templates = probe_ops(model, [probe(model, *shape) for shape in shapes], shapes, sites)
                attrs[key] = squeeze([t.to_dict() for t in templates])
        sites += gate_sites(sites)
        variants = self.facts["variants"]
        metas = [
            SiteMeta(s.name, s.layer, "gate" if s.output else "down", s.k, s.n, variants=tuple(variants)) for s in sites
        ]
        writer = Writer(self.out, self._capacity(front), metas, attrs, done is not None, self.options)
        try:
            self._forward(model, sites, writer)
            trace = open_trace(self.out, self.options)
            writer.commit(status="complete", hash=content_hash(trace))
        finally:
            writer.close()
        return open_trace(self.out, self.options)

    def _capacity(self, front: int) -> int:
        """Rows of the whole trace, padding, generated tokens and `front` virtual tokens a sequence among them."""
        more = self.new_tokens + front
        return sum(len(rows) * (max(self.inputs.lengths[r] for r in rows) + more) for rows in self.order)

    def _already(self) -> Trace | None:
        """Return the trace that is there, if it is this one."""
        if Folder(self.out, self.options).read("zarr.json") is None:
            return None
        root = read_root(Folder(self.out, self.options))
        if root.attrs.get("plan") != self.plan:
            raise InputError(f"'{self.out}' holds another recording; choose another file or remove it")
        return open_trace(self.out, self.options)

    def _load(self) -> Any:
        if self.adapter is None:
            return load_model(self.facts["model"]["name"], self.facts["task"])
        from .tuning.result import load_tuned

        return load_tuned(self.adapter, merge=self.facts["merged"])[0]

    def _attrs(self, model: Any) -> dict[str, Any]:
        config = model.config
        measured = self.tuned["measurements"] if self.tuned else {}
        return self.facts | {
            "model": self.facts["model"]
            | {"family": config.model_type, "parameters": sum(p.numel() for p in model.parameters())},
            "tuning": self.tuned["tuning"] if self.tuned else {"name": "none"},
            "measurements": measured,
            "provenance": provenance(measured.get("provenance", {}).get("seed")),
            "synthetic": False,
            "plan": self.plan,
            "next_batch": 0,
            "recorder": {"forward_seconds": 0.0, "hook_seconds": 0.0},
        }

    def _forward(self, model: Any, sites: list[MLPSite], writer: Writer) -> None:
        import torch
        from tqdm.auto import tqdm

        first = int(writer.root.attrs["next_batch"])
        spent = dict(writer.root.attrs["recorder"])
        kept = writer.root.attrs["histograms"]
        tap = SiteTap(model, sites, self.facts["variants"], kept is not None)
        for site, counts in (kept or {}).items():
            tap.histograms[site] += counts
        committed = time.monotonic()
        name = writer.root.attrs["tuning"]["name"]
        bar = tqdm(
            total=len(self.order), initial=first, desc=f"record {name}", unit="batch", file=sys.stderr,
            disable=not self.progress,
        )  # fmt: skip
        try:
            for index in range(first, len(self.order)):
                side = "left" if self.new_tokens else "right"
                batch = self.inputs.batch(self.order[index], side)
                began, hooked = time.perf_counter(), tap.seconds
                with torch.inference_mode():
                    for columns in run_batch(model, batch, index, self.new_tokens):
                        self._check(tap, batch)
                        writer.append(columns, tap.take())
                spent["forward_seconds"] += time.perf_counter() - began
                spent["hook_seconds"] += tap.seconds - hooked
                bar.update()
                late = time.monotonic() - committed > COMMIT_SECONDS
                if late or writer.pending_bytes > COMMIT_BYTES or index + 1 == len(self.order):
                    counts = {site: h.tolist() for site, h in tap.histograms.items()} or None
                    writer.commit(next_batch=index + 1, recorder=_overhead(spent), histograms=counts)
                    committed = time.monotonic()
        finally:
            bar.close()
            tap.close()

    def _check(self, tap: SiteTap, batch: Batch) -> None:
        if tap.non_finite and not self.allow:
            listed = ", ".join(f"{count} at {site}" for site, count in tap.non_finite.items())
            raise NumericError(
                f"activations are not finite ({listed}; sequences {batch.rows.min()}..{batch.rows.max()}); "
                "check the model's weights and dtype, or allow them with allow_non_finite"
            )


def _overhead(spent: dict[str, float]) -> dict[str, float]:
    """Seconds in hooks over seconds of the forward pass without them."""
    plain = spent["forward_seconds"] - spent["hook_seconds"]
    return spent | {"overhead": spent["hook_seconds"] / plain if plain > 0 else 0.0}


def _task(model: str, adapter: str | Path | None, task: str | None, new_tokens: int) -> str:
    """Decide which head to load, and refuse what text alone cannot run."""
    tuned = _tuned(model, adapter)
    found = str(tuned["measurements"]["task"]) if tuned else task or default_task(model)
    if found not in ("classification", "regression", "causal-lm", "features"):
        raise InputError(f"task '{found}': text alone does not run such a model; record encoders and causal decoders")
    if new_tokens and found != "causal-lm":
        raise InputError(f"new_tokens {new_tokens}: decoding needs a causal language model, '{model}' is for {found}")
    return found


def _tuned(model: str, adapter: str | Path | None) -> dict[str, Any] | None:
    """Read what is kept of a tuning in the trace."""
    if adapter is None:
        return None
    from .tuning.result import open_result

    result = open_result(adapter)
    if result.measurements["model"] != model:
        raise InputError(
            f"adapter '{adapter}' was tuned on model '{result.measurements['model']}', not '{model}'; give that"
        )
    measured = {k: v for k, v in result.measurements.items() if k not in ("schema", "key")}
    tuning = result.tuning.canonical() | {"hash": result.tuning.hash}
    return {"key": result.measurements["key"], "tuning": tuning, "measurements": measured}
