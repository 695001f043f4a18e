"""Record which activations of a model are zero, batch by batch, into a store.

The batches are planned before the first one runs, so a stopped recording goes on at the batch after the last commit and
ends with the same bits as an undisturbed one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import Batch
from ..data.inputs import prepare
from ..data.load import load_data
from ..errors import InputError, NumericError, did_you_mean
from ..models.adapters import is_peft_folder, load_adapter
from ..models.experts import recorded_experts
from ..models.limits import running
from ..models.load import load_model
from ..models.prompts import virtual_tokens
from ..models.sites import MLPSite
from ..oplist.example_inputs import decode_probe, probe_shapes, prompt_probe
from ..oplist.windows import list_ops
from ..provenance import provenance
from ..storage.chunks import content_hash
from ..storage.folder import Folder
from ..storage.store import Writer, read_root, squeeze
from ..storage.trace import Trace, open_trace
from .device import Cuda, accelerator, resolve_device
from .hooks import VALUES, Packet, SiteTap, parse_variants
from .overhead import Clock
from .passes import run_batch, spread
from .schedule import Plan, as_budget, choose_task, tuning_of
from .targets import Linked, places, remarks, site_metas
from .writer_thread import Worker

COMMIT_SECONDS = 5.0
COMMIT_BYTES = 64 << 20
PASSES = 8  # forward passes that may wait to be written,
WAITING_BYTES = 64 << 20  # and their bytes
DTYPES = ("float32", "bfloat16", "float16")
Columns = dict[str, NDArray[np.int32]]


def record(
    model: str = "minilm-l6",
    adapter: str | Path | None = None,
    data: str = "vader-movie",
    limit: int | None = None,
    out: str | Path = "trace.zarr",
    batch_size: int = 32,
    max_length: int = 64,
    merge: bool = True,
    task: str | None = None,
    new_tokens: int = 0,
    thresholds: Sequence[float] = (),
    int8: bool = False,
    histogram: bool = False,
    values: str | None = None,
    weights: bool = False,
    mlp_inputs: bool = False,
    adapters: bool = False,
    tokens: int | None = None,
    layers: str | Sequence[int] | None = None,
    seconds: float | None = None,
    device: str | None = None,
    dtype: str | None = None,
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
        Folder of a tuning made by `tune`, or an adapter's that the peft library wrote.
    data : str
        Packaged, local or hub data set; its held-out split is used.
    limit : int, optional
        Sequences; 256 unless `tokens` or `seconds` is given.
    out : str or Path
        Local path or fsspec URL.
    batch_size, max_length : int
        Sequences in a forward pass, and tokens kept of each.
    merge : bool
        Fold adapters into the weights; otherwise their GEMMs are among the ops.
    task : str, optional
        Which head to load (`traces.models.load.TASKS`); the tuning's or the model's own by default.
    new_tokens : int
        Passes that decode one token a sequence with a KV cache, after the prompt's; for causal language models, and
        for encoders with a decoder, whose prompt is then its start token alone.
    thresholds : sequence of float
        Also record where ``|a|`` exceeds each.
    int8 : bool
        Also record what is not zero after symmetric quantisation of each token to 8 bits.
    histogram : bool
        Also count magnitudes by powers of two, kept in the trace's attributes.
    values : {"bf16", "int8"}, optional
        Also keep the activations' values, rounded to bfloat16 or to INT8 with one step for each token.
    weights : bool
        Also keep where the weights of the down-projections are not zero, and of ``up`` where a gate is recorded.
    mlp_inputs : bool
        Also record what enters each MLP block: a row without ones is a block that may be skipped.
    adapters : bool
        Also record which inner elements of adapters are used, and which tokens a gated adapter takes.
    tokens : int, optional
        Stop after the sequence that reaches as many real tokens.
    layers : str or sequence of int, optional
        Record only these layers: numbers, ``"0,3,5-7"``, or globs over the sites' names.
    seconds : float, optional
        Stop after the batch with which the forward passes have taken as long.
    device : str, optional
        ``"cpu"``, ``"cuda"``; a GPU where there is one, by default.
    dtype : {"float32", "bfloat16", "float16"}, optional
        Run the model in this format; as loaded by default.
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
        The stored trace, opened.

    Raises
    ------
    InputError
        On unknown names, less held-out data than was asked for, or an `out` that holds another recording.
    NumericError
        If an activation is not finite.
    StorageError
        If the disk is full or another process writes there; what was finished is kept.

    Examples
    --------
    >>> trace = sk.record("minilm-l6", adapter="lora", data="vader-movie", limit=64, out="lora.zarr")  # doctest: +SKIP
    >>> trace.sites["layers.0.down"].density()  # doctest: +SKIP
    """
    budget = as_budget(limit, tokens, seconds, layers)
    if values not in (None, *VALUES):
        raise InputError(f"values '{values}': say bf16 or int8")
    if dtype not in (None, *DTYPES):
        raise InputError(f"dtype '{dtype}' is not known{did_you_mean(dtype or '', DTYPES)}")
    place = resolve_device(device)
    tuned = tuning_of(model, adapter)
    chosen = choose_task(model, tuned, task, new_tokens)
    # a decoder beside an encoder reads the labels, unless it says its own tokens; elsewhere they change no activation
    read = chosen if chosen == "seq2seq" and not new_tokens else "features"
    content = load_data(data, text=text or "text", label=label or "label", task=read)
    split = content.test.head(budget.sequences(data, len(content.test)))
    split = split if read == "seq2seq" else replace(split, labels=None)
    inputs = prepare(model, chosen, split, max_length, new_tokens, tuned["front"] if tuned else 0)
    plan = Plan(inputs, budget, batch_size, new_tokens, data)
    facts: dict[str, Any] = {
        "model": {"name": model},
        "data": {"name": data, "split": "held-out", "sequences": plan.sequences, "max_length": max_length},
        "batch_size": batch_size,
        "merged": merge,
        "task": chosen,
        "new_tokens": new_tokens,
        "variants": parse_variants(thresholds, int8),
        "histograms": {} if histogram else None,
    }
    optional = {"values": values, "weights": weights, "mlp_inputs": mlp_inputs, "adapters": adapters, "dtype": dtype}
    facts |= {name: value for name, value in optional.items() if value}
    settings = _Settings(adapter, tuned, sites, place, allow_non_finite, progress, storage_options)
    return _Session(plan, facts, str(out), settings).run()


@dataclass(frozen=True)
class _Settings:
    """What does not decide the content, or only by what it names."""

    adapter: str | Path | None
    tuned: dict[str, Any] | None
    patterns: str | Sequence[str] | None
    device: str
    allow: bool
    progress: bool
    options: dict[str, Any] | None


class _Session:
    """One recording; its attributes are what loading, running and finishing share."""

    def __init__(self, plan: Plan, facts: dict[str, Any], out: str, settings: _Settings) -> None:
        self.plan, self.facts, self.out, self.settings = plan, facts, out, settings
        self.new_tokens = int(facts["new_tokens"])
        tuned = settings.tuned
        kind = settings.device.partition(":")[0]
        self.key = plan.key(facts, tuned["key"] if tuned else None, settings.patterns, kind)

    def run(self) -> Trace:
        done = self._already()
        if done is not None and done.status == "complete":
            return done
        model, options = self._load(), self.settings.options
        every, sites, linked = places(
            model,
            self.settings.patterns,
            self.plan.budget.layers,
            bool(self.facts.get("mlp_inputs")),
            bool(self.facts.get("adapters")),
        )
        if self.settings.patterns is None:
            _say(remarks(model, every))
        attrs = self._attrs(model, every, linked) if done is None else {}
        metas, weights = site_metas(
            model, sites, self.facts["variants"], self.facts.get("values", ""), bool(self.facts.get("weights"))
        )
        capacity = self.plan.capacity(self.new_tokens + virtual_tokens(model))
        writer = Writer(self.out, capacity, metas, attrs, done is not None, options)
        try:
            for name, words in weights.items():
                writer.write_weight(name, words)
            spent = self._forward(model, sites, writer)
            trace = open_trace(self.out, options)
            writer.commit(status="complete", hash=content_hash(trace), recorder=spent, **self._reached(trace, spent))
        finally:
            writer.close()
        return open_trace(self.out, options)

    def _already(self) -> Trace | None:
        """Return the trace that is there, if it is this one."""
        folder = Folder(self.out, self.settings.options)
        if folder.read("zarr.json") is None:
            return None
        if read_root(folder).attrs.get("plan") != self.key:
            raise InputError(f"'{self.out}' holds another recording; choose another file or remove it")
        return open_trace(self.out, self.settings.options)

    def _load(self) -> Any:
        import torch

        name, task, adapter = self.facts["model"]["name"], self.facts["task"], self.settings.adapter
        needs_head = "decoding tokens" if self.new_tokens else ""
        if adapter is None:
            model = load_model(name, task, needs_head=needs_head)
        elif is_peft_folder(adapter):
            model = load_adapter(adapter, name, task, self.facts["merged"], needs_head)
        else:
            from ..tuning.result import load_tuned

            model = load_tuned(adapter, merge=self.facts["merged"])[0]
        return model.to(getattr(torch, self.facts["dtype"])) if "dtype" in self.facts else model

    def _attrs(self, model: Any, every: list[MLPSite], linked: Linked) -> dict[str, Any]:
        config, tuned = model.config, self.settings.tuned
        measured = tuned["measurements"] if tuned else {}
        ops = {}
        for key, probe in (("ops", prompt_probe), ("ops_decode", decode_probe))[: 1 + bool(self.new_tokens)]:
            shapes = probe_shapes(model)
            with running(model, "a short sample"):
                templates = list_ops(model, probe, shapes, every, linked)
            ops[key] = squeeze([t.to_dict() for t in templates])
        return (
            self.facts
            | ops
            | {
                "model": self.facts["model"]
                | {"family": config.model_type, "parameters": sum(p.numel() for p in model.parameters())},
                "tuning": tuned["tuning"] if tuned else {"name": "none"},
                "measurements": measured,
                "provenance": provenance(measured.get("provenance", {}).get("seed")),
                "synthetic": False,
                "plan": self.key,
                "budget": {"asked": self.plan.budget.asked()},
                "next_batch": 0,
                "recorder": {},
            }
        )

    def _forward(self, model: Any, sites: list[MLPSite], writer: Writer) -> dict[str, float]:
        """Run the batches that are left; return the seconds of the whole recording, by what they went to."""
        import torch

        device = accelerator(self.settings.device)
        try:
            with device or nullcontext():
                return self._batches(model.to(self.settings.device), sites, writer, device)
        except torch.cuda.OutOfMemoryError as error:
            size = self.facts["batch_size"]
            raise InputError(
                f"--batch-size {size}: a forward pass does not fit into the GPU's memory; record fewer at a time"
            ) from error

    def _batches(self, model: Any, sites: list[MLPSite], writer: Writer, device: Cuda | None) -> dict[str, float]:
        attrs, order = writer.root.attrs, self.plan.order
        index = int(attrs["next_batch"])
        tap = SiteTap(
            model,
            sites,
            self.facts["variants"],
            attrs["histograms"] is not None,
            self.facts.get("values", ""),
            device,
            PASSES + 2,  # one is being read and one being filled while so many wait
        )
        held_up = device.idle if device is not None else lambda: True
        bar = _bar(attrs["tuning"]["name"], index, len(order), self.settings.progress)
        try:
            with Worker(PASSES, WAITING_BYTES, held_up) as worker, recorded_experts(model, sites, tap):
                if device is not None and index < len(order):
                    self._warm_up(model, tap)
                tap.go_on(attrs["histograms"] or {})
                clock = Clock(attrs["recorder"], tap, worker)
                committed, handed = time.monotonic(), 0
                while index < len(order) and not self._out_of_time(clock, index):
                    handed += self._batch(model, index, tap, writer, worker, clock)
                    index += 1
                    bar.update()
                    if time.monotonic() - committed > COMMIT_SECONDS or handed > COMMIT_BYTES:
                        self._commit(writer, worker, index, clock, tap)
                        committed, handed = time.monotonic(), 0
                if device is not None:
                    with clock.forward():
                        device.wait()
                self._commit(writer, worker, index, clock, tap)
            return clock.facts()
        finally:
            bar.close()
            tap.close()

    def _out_of_time(self, clock: Clock, index: int) -> bool:
        seconds = self.plan.budget.seconds
        return seconds is not None and index > 0 and clock.forward_seconds >= seconds

    def _warm_up(self, model: Any, tap: SiteTap) -> None:
        """Run the largest prompt once: kernels are compiled and buffers made before clocks run."""
        import torch

        largest = max(range(len(self.plan.order)), key=self.plan.rows)
        with torch.inference_mode():
            next(iter(run_batch(model, self._inputs(model, largest), largest, self.new_tokens)))
            tap.start_over()

    def _inputs(self, model: Any, index: int) -> Batch:
        batch = self.plan.inputs.batch(self.plan.order[index], "left" if self.new_tokens else "right")
        return replace(batch, inputs={name: self._moved(value, model.dtype) for name, value in batch.inputs.items()})

    def _batch(self, model: Any, index: int, tap: SiteTap, writer: Writer, worker: Worker, clock: Clock) -> int:
        """Run one batch's passes and hand over what they gave; return its bytes."""
        import torch

        batch, size = self._inputs(model, index), 0
        with clock.forward(), torch.inference_mode():
            for columns in run_batch(model, batch, index, self.new_tokens):
                packet = tap.take()
                worker.put(partial(self._store, writer, columns, packet, batch.rows), packet.size_bytes)
                size += packet.size_bytes
        return size

    def _moved(self, value: Any, dtype: Any) -> Any:
        import torch

        if not isinstance(value, torch.Tensor):
            return value
        return value.to(self.settings.device, dtype if value.is_floating_point() else value.dtype)

    def _store(self, writer: Writer, columns: Columns, packet: Packet, rows: NDArray[np.int64]) -> None:
        """Queue one pass's rows, on the worker's thread."""
        arrays, bad = packet.receive()
        if bad and not self.settings.allow:
            listed = ", ".join(f"{count} at {site}" for site, count in bad.items())
            raise NumericError(
                f"activations are not finite ({listed}; sequences {rows.min()}..{rows.max()}); "
                "check the model's weights and dtype, or allow them (allow_non_finite, --allow-non-finite)"
            )
        stacks = {meta.name: meta.stack for meta in writer.root.sites}
        made = spread(arrays, columns, stacks) if any(stacks.values()) else arrays
        for meta in writer.root.sites:
            if meta.stack and meta.name not in arrays:  # an encoder rests while tokens are generated
                made |= meta.blank(len(columns["phase"]))
        writer.append(columns, made)

    def _commit(self, writer: Writer, worker: Worker, next_batch: int, clock: Clock, tap: SiteTap) -> None:
        state = {"next_batch": next_batch, "recorder": clock.facts(), "histograms": tap.histograms()}
        worker.put(partial(writer.commit, **state))

    def _reached(self, trace: Trace, spent: dict[str, float]) -> dict[str, Any]:
        """Return what the budget asked for, and what was recorded."""
        batches, sequences = int(trace.attrs["next_batch"]), int(trace.tokens["sequence"].nunique())
        reached = {
            "sequences": sequences,
            "tokens": trace.n_tokens,
            "batches": batches,
            "seconds": round(spent["forward_seconds"], 3),
        }
        budget = {"asked": self.plan.budget.asked(), "reached": reached, "planned_batches": len(self.plan.order)}
        return {"budget": budget, "data": self.facts["data"] | {"sequences": sequences}}


def _say(lines: Sequence[str]) -> None:
    from tqdm.auto import tqdm

    for line in lines:
        tqdm.write(line, file=sys.stderr)


def _bar(name: str, first: int, batches: int, shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=batches, initial=first, desc=f"record {name}", unit="batch", file=sys.stderr, disable=not shown)
