"""Tune a model: deterministic, resumable, and the result folder complete or not there."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..batches import collate, encode, padding_token, training_order
from ..data import Split, TextData, load_data
from ..errors import InputError, NumericError
from ..files import write_atomic, write_json
from ..models import load_tokenizer
from ..provenance import provenance
from ..sites import find_sites
from . import checkpoint
from .density import ActivationTap, penalty
from .evaluate import evaluate
from .registry import load_tuning
from .result import ADAPTER, HEAD, MEASUREMENTS, SCHEMA, TuneResult, build_model, load_weights, open_result
from .spec import LoRA, Tuning

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 10.0
LOG_EVERY = 10  # counting exact zeros costs a pass over every activation, so not each step does it


@dataclass(frozen=True)
class Run:
    """All that decides a tuning's outcome."""

    model: str
    data: str
    task: str
    labels: int
    tuning: Tuning
    limit: int | None
    test_limit: int | None

    @property
    def key(self) -> str:
        """SHA-256 that tells one run from another."""
        facts = [self.model, self.data, self.task, self.labels, self.tuning.hash, self.limit, self.test_limit]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def tune(
    model: str = "minilm-l6",
    data: str = "vader-movie",
    tuning: str | Path | Tuning = "lora",
    out: str | Path = "tuned",
    seed: int | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    init: str | Path | None = None,
    text: str | None = None,
    label: str | None = None,
    progress: bool = True,
) -> TuneResult:
    """Tune a model on a data set and measure it on the held-out split.

    A killed run goes on from its last checkpoint and, on the CPU with the same number of threads, ends with the same
    weights. A finished one is returned as it is.

    Parameters
    ----------
    model, data : str
        Packaged, hub or local names.
    tuning : str, Path or Tuning
        A ready-made tuning's name, a YAML file, or the object.
    out : str or Path
        The result's folder.
    seed : int, optional
        Overrides the tuning's seed.
    limit, test_limit : int, optional
        Rows used of the training and of the held-out split.
    init : str or Path, optional
        A finished tuning to start from. Where the tuning has ``init_from`` and this is not given, the folder of
        that name beside `out` is used, and made first if it is not there.
    text, label : str, optional
        Column names of a file or hub data set: ``text`` and ``label`` by default.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    TuneResult

    Raises
    ------
    InputError
        If a name is not known, or `out` holds another run.
    NumericError
        If the loss is not finite.
    """
    plan = load_tuning(tuning)
    if seed is not None:
        plan = plan.model_copy(update={"seed": seed})
    folder = Path(out)
    content = load_data(data, text=text or "text", label=label or "label")
    if content.train.labels is None or not content.classes:
        raise InputError(f"data set '{data}' has no labels; name their column with label=...")
    run = Run(model, data, "classification", len(content.classes), plan, limit, test_limit)
    if (folder / MEASUREMENTS).is_file():
        done = open_result(folder)
        if done.measurements["key"] != run.key:
            raise InputError(f"'{folder}' holds another tuning ('{done.tuning.name}'); choose another folder")
        return done
    start = _starting_point(run, folder, init, {"text": text, "label": label, "progress": progress})
    folder.mkdir(parents=True, exist_ok=True)
    return _Trainer(run, content, folder, start, progress).finish()


def _starting_point(run: Run, folder: Path, init: str | Path | None, options: dict[str, Any]) -> Path | None:
    """Resolve ``init_from`` to a finished tuning's folder, tuning it first where need be."""
    if init is None and run.tuning.init_from is None:
        return None
    if init is not None:
        return open_result(init).path
    before = load_tuning(str(run.tuning.init_from)).model_copy(update={"seed": run.tuning.seed})
    beside = folder.resolve().parent / before.name
    return tune(run.model, run.data, before, beside, limit=run.limit, test_limit=run.test_limit, **options).path


class _Trainer:
    """One training run; its attributes are what the steps share."""

    def __init__(self, run: Run, data: TextData, folder: Path, start: Path | None, progress: bool) -> None:
        import torch

        self.run, self.folder, self.progress, self.start = run, folder, progress, start
        self.plan = run.tuning.train
        caps = [c for c in (run.limit, self.plan.max_samples) if c is not None]
        self.train: Split = data.train.head(min(caps) if caps else None)
        self.test: Split = data.test.head(run.test_limit)
        tokenizer = load_tokenizer(run.model)
        self.pad = padding_token(tokenizer)
        self.tokens = encode(tokenizer, self.train.texts, self.plan.max_length)
        self.test_tokens = encode(tokenizer, self.test.texts, self.plan.max_length)
        self.net = build_model(run.model, run.task, run.labels, run.tuning)
        if start is not None:
            load_weights(self.net, start)
        self.sites = find_sites(self.net)
        self.weights = {n: p for n, p in self.net.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()), lr=self.plan.lr, weight_decay=self.plan.weight_decay
        )
        self.log: list[dict[str, float]] = []
        per_epoch = math.ceil(len(self.train) / self.plan.batch_size)
        self.passes = max(1, math.ceil(per_epoch * self.plan.epochs))
        self.steps = math.ceil(self.passes / self.plan.accumulate)

    def finish(self) -> TuneResult:
        """Train from the last checkpoint to the end, measure, and write the result."""
        import torch

        torch.manual_seed(self.run.tuning.seed + 1)
        meta = checkpoint.load(self.folder / CHECKPOINT, self.weights, self.optimizer, self.run.key)
        first = 0 if meta is None else int(meta["step"])
        before = 0.0 if meta is None else float(meta["seconds"])
        self.log = [] if meta is None else meta["log"]
        seconds = before + self._train(first, before)
        return self._write(seconds)

    def _train(self, first: int, before: float) -> float:
        from tqdm.auto import tqdm

        began = saved = time.monotonic()
        order = self._batches()
        loss = self.run.tuning.density
        tap = ActivationTap(self.net, self.sites, loss.at if loss else "product")
        bar = tqdm(
            total=self.steps,
            initial=first,
            desc=f"tune {self.run.tuning.name}",
            unit="step",
            file=sys.stderr,
            disable=not self.progress,
        )
        self.net.train()
        try:
            for step in range(first, self.steps):
                row = self._step(step, order, tap)
                bar.update()
                if row is not None:
                    row["seconds"] = before + time.monotonic() - began
                    self.log.append(row)
                    bar.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", "density", "accuracy")})
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    meta = {"key": self.run.key, "step": step + 1, "log": self.log}
                    meta["seconds"] = before + time.monotonic() - began
                    checkpoint.save(self.folder / CHECKPOINT, self.weights, self.optimizer, meta)
                    saved = time.monotonic()
        finally:
            bar.close()
            tap.close()
        return time.monotonic() - began

    def _batches(self) -> list[list[int]]:
        lengths = [len(t) for t in self.tokens]
        batches: list[list[int]] = []
        epoch = 0
        while len(batches) < self.passes:
            seed = self.run.tuning.seed * 1_000_003 + epoch
            batches += training_order(lengths, self.plan.batch_size, self.plan.bucket, seed)
            epoch += 1
        return batches[: self.passes]

    def _rate(self, step: int) -> float:
        rise = max(1.0, self.plan.warmup * self.steps)
        return self.plan.lr * min(1.0, (step + 1) / rise) * (1.0 - step / self.steps)

    def _step(self, step: int, order: list[list[int]], tap: ActivationTap) -> dict[str, float] | None:
        """One optimiser step over `accumulate` batches; returns a log row now and then."""
        import torch

        group = order[step * self.plan.accumulate : (step + 1) * self.plan.accumulate]
        for options in self.optimizer.param_groups:
            options["lr"] = self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        logged = (step + 1) % LOG_EVERY == 0 or step + 1 == self.steps
        row = None
        for rows in group:
            row = self._forward_backward(rows, step / self.steps, 1.0 / len(group), tap, logged)
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.plan.clip)
        self.optimizer.step()
        return {"step": float(step + 1), "lr": self._rate(step), **row} if row is not None else None

    def _forward_backward(
        self, rows: list[int], progress: float, share: float, tap: ActivationTap, logged: bool
    ) -> dict[str, float] | None:
        import torch

        batch = collate(self.tokens, rows, self.pad)
        labels = torch.tensor([self.train.labels[r] for r in rows])  # type: ignore[index]
        output = self.net(**batch.inputs, labels=labels)
        penalised = self.run.tuning.density
        values = tap.take(None if penalised is not None and penalised.count_padding else batch.mask)
        loss, smooth = output.loss, None
        if penalised is not None:
            smooth = torch.stack([penalty(v, penalised, progress) for v in values]).mean()
            rise = min(1.0, progress / penalised.warmup) if penalised.warmup else 1.0
            loss = loss + penalised.weight * rise * smooth
        if not bool(torch.isfinite(loss)):
            raise NumericError(
                f"tuning '{self.run.tuning.name}': the loss is {float(loss.detach())} after {progress:.0%} of the "
                "steps; lower train.lr or density.weight"
            )
        (loss * share).backward()
        if not logged:
            return None
        with torch.no_grad():
            ones = sum(int(torch.count_nonzero(v)) for v in values)
            return {
                "loss": float(loss),
                "task_loss": float(output.loss),
                "density_loss": float(smooth) if smooth is not None else math.nan,
                "density": ones / sum(v.numel() for v in values),
                "accuracy": float((output.logits.argmax(-1) == labels).float().mean()),
            }

    def _write(self, seconds: float) -> TuneResult:
        """Measure on the held-out split, write every file, the measurements last: they mark the folder finished."""
        import pandas as pd

        scores = evaluate(self.net, self.test_tokens, self.test.labels or (), self.sites, self.pad, self.progress)
        write_atomic(self.folder / "tuning.yaml", lambda p: p.write_text(self.run.tuning.to_yaml(), encoding="utf-8"))
        write_atomic(self.folder / "log.parquet", lambda p: pd.DataFrame(self.log).to_parquet(p))
        self._save_weights()
        measurements = {
            "schema": SCHEMA,
            "key": self.run.key,
            "model": self.run.model,
            "data": self.run.data,
            "task": self.run.task,
            "labels": self.run.labels,
            "tuning": self.run.tuning.name,
            "tuning_hash": self.run.tuning.hash,
            "method": self.run.tuning.method,
            "init": str(self.start.name) if self.start is not None else None,
            **scores,
            "trainable_parameters": sum(p.numel() for p in self.weights.values()),
            "train_samples": len(self.train),
            "steps": self.steps,
            "train_seconds": round(seconds, 3),
            "threads": _threads(),
            "provenance": provenance(self.run.tuning.seed),
        }
        write_json(self.folder / MEASUREMENTS, measurements)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return open_result(self.folder)

    def _save_weights(self) -> None:
        from safetensors.torch import save_file

        if not isinstance(self.run.tuning.module, LoRA):
            tensors = {n: p.detach().clone() for n, p in self.weights.items()}
            write_atomic(self.folder / HEAD, lambda p: save_file(tensors, p))
            return
        self.net.peft_config["default"].base_model_name_or_path = self.run.model  # not a path of this machine
        staging = self.folder / ".adapter"
        self.net.save_pretrained(staging, save_embedding_layers=False)
        for name in (ADAPTER, "adapter_config.json"):
            (staging / name).replace(self.folder / name)
        shutil.rmtree(staging)


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())
