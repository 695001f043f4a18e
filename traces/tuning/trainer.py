"""The training loop: deterministic, resumable, and the result folder complete or not there."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batches import Batch, training_order
from ..data.inputs import prepare
from ..data.items import Inputs
from ..data.load import Data
from ..errors import InputError, NumericError
from ..files import write_atomic, write_json
from ..models.experts import model_sites, recorded_experts
from ..models.limits import running
from ..models.sites import MLPSite
from ..provenance import provenance
from . import checkpoint
from .activations import ActivationTap, of_tokens
from .change import Sample
from .evaluate import evaluate
from .methods.density import factors, penalty
from .result import (
    DECIDED,
    MEASUREMENTS,
    SCHEMA,
    TuneResult,
    build_model,
    load_tuned,
    load_weights,
    open_result,
    read_tensors,
    save_weights,
)
from .score import predictions
from .spec import Tuning

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 10.0
logger = logging.getLogger(__name__)
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
    sites: tuple[str, ...] | None = None  # patterns that name the down-projections by hand
    before: tuple[str | None, str | None] = (None, None)  # keys of the tunings given to start from and to learn from

    @property
    def key(self) -> str:
        """SHA-256 that tells one run from another."""
        facts: list[Any] = [
            self.model,
            self.data,
            self.task,
            self.labels,
            self.tuning.hash,
            self.limit,
            self.test_limit,
        ]
        facts += [self.sites] if self.sites else []
        facts += [self.before] if any(self.before) else []
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class Trainer:
    """One training run; its attributes are what the steps share.

    Parameters
    ----------
    run : Run
        What decides the outcome.
    data : Data
        Its two splits.
    folder : Path
        Where the result goes.
    start, teacher : Path, optional
        Folders of finished tunings: to start from, and to learn from.
    progress : bool
        Show a progress bar on stderr.
    """

    def __init__(
        self, run: Run, data: Data, folder: Path, start: Path | None, teacher: Path | None, progress: bool
    ) -> None:
        import torch

        self.run, self.folder, self.progress, self.start = run, folder, progress, start
        self.plan = run.tuning.train
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        caps = [c for c in (run.limit, self.plan.max_samples) if c is not None]
        train, test = data.train.head(min(caps) if caps else None), data.test.head(run.test_limit)
        if not len(train) or not len(test):
            raise InputError(f"data set '{run.data}' leaves an empty split: {len(train)} train, {len(test)} held out")
        front = int(getattr(run.tuning.module, "virtual_tokens", 0))
        self.train: Inputs = prepare(run.model, run.task, train, self.plan.max_length, front=front)
        self.test: Inputs = prepare(run.model, run.task, test, self.plan.max_length, front=front)
        self.rows, self.validation = self._validation_rows()
        self.built = self._build()
        self.net = self.built.net.to(self.device)
        if start is not None:
            load_weights(self.net, start, start=True)
        self.teacher = load_tuned(teacher)[0].to(self.device) if teacher else None
        self.sites = self._sites(self.net)
        self.factors = factors(self.sites, run.tuning.density) if run.tuning.density else []
        self.weights = {n: p for n, p in self.net.named_parameters() if p.requires_grad}
        if not self.weights:
            raise InputError(f"tuning '{run.tuning.name}' leaves nothing to train in this model; choose a module")
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()), lr=self.plan.lr, weight_decay=self.plan.weight_decay
        )
        self.log: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self.validations: list[float] = []
        self.passes = max(1, math.ceil(math.ceil(len(self.rows) / self.plan.batch_size) * self.plan.epochs))
        self.steps = math.ceil(self.passes / self.plan.accumulate)

    def _validation_rows(self) -> tuple[list[int], list[int]]:
        """Split the training rows: those to train on, and those that decide when to stop."""
        rows = np.random.Generator(np.random.PCG64(self.run.tuning.seed)).permutation(len(self.train)).tolist()
        if self.plan.patience is None:
            return sorted(rows), []
        cut = max(1, round(self.plan.validation_fraction * len(rows)))
        if cut >= len(rows):
            raise InputError(
                f"train.validation_fraction {self.plan.validation_fraction} leaves no rows of {len(rows)} to train on"
            )
        return sorted(rows[cut:]), sorted(rows[:cut])

    def _sites(self, net: Any) -> list[MLPSite]:
        """Return where density is counted: nowhere in a family that is not known, where the tuning does not ask."""
        try:
            return model_sites(net)
        except InputError as error:
            if self.run.sites or self.run.tuning.density is not None:
                raise
            logger.warning("density is not measured: %s", error)
            return []

    def _build(self) -> Any:
        """Build the model; what its changes decide on data is kept, so that a resumed run decides the same."""
        from safetensors.torch import save_file

        run, kept = self.run, self.folder / DECIDED
        decided = read_tensors(kept, run.key) if kept.is_file() else None
        sample = Sample(self._sample, self._sample_loss, run.task, run.tuning.seed)
        built = build_model(run.model, run.task, run.labels, run.tuning, decided, sample, self.start, run.sites)
        if built.decided and decided is None:
            tensors = {name: t.contiguous() for name, t in built.decided.items()}
            write_atomic(kept, lambda p: save_file(tensors, p, metadata={"key": run.key}))
        return built

    def _sample_loss(self, net: Any, batch: Batch) -> Any:
        return self._task_loss(net(**batch.inputs), batch)

    def _sample(self, count: int, size: int) -> Iterator[Batch]:
        """Yield training batches for choices: the same rows whatever the order of training."""
        order = np.random.Generator(np.random.PCG64(20240601)).permutation(self.rows).tolist()
        for first in range(0, min(count * size, len(order)), size):
            yield self.train.batch(order[first : first + size])

    def finish(self) -> TuneResult:
        """Train from the last checkpoint to the end, measure, and write the result."""
        import torch

        torch.manual_seed(self.run.tuning.seed + 1)
        found = checkpoint.load(self.folder / CHECKPOINT, self.weights, self.optimizer, self.run.key)
        first, before = 0, 0.0
        if found is not None:
            meta, extra = found
            first, before, self.log, self.validations = (
                int(meta["step"]),
                float(meta["seconds"]),
                meta["log"],
                meta["looks"],
            )
            self.best = {n.removeprefix("best:"): t for n, t in extra.items() if n.startswith("best:")}
            for index, change in enumerate(self.built.changes):
                prefix = f"change{index}:"
                change.restore({n.removeprefix(prefix): t for n, t in extra.items() if n.startswith(prefix)})
        seconds = before + self._train(first, before)
        if self.best:
            with torch.no_grad():
                for name, parameter in self.weights.items():
                    parameter.copy_(self.best[name])
        return self._write(seconds)

    def _train(self, first: int, before: float) -> float:
        import torch
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
            with recorded_experts(self.net, self.sites, tap):
                for step in range(first, self.steps):
                    if self._stalled():
                        break
                    row = self._step(step, order, tap)
                    bar.update()
                    if row is not None:
                        row["seconds"] = before + time.monotonic() - began
                        self.log.append(row)
                        shown = ("loss", "density", "accuracy")
                        bar.set_postfix({k: f"{row[k]:.3f}" for k in shown if not math.isnan(row[k])})
                    self._validate(step)
                    tap.take()  # what the validation passes left there
                    if time.monotonic() - saved > CHECKPOINT_SECONDS:
                        self._checkpoint(step + 1, before + time.monotonic() - began)
                        saved = time.monotonic()
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"train.batch_size {self.plan.batch_size}: a training step does not fit into the GPU's memory; lower "
                "it, and raise train.accumulate as much"
            ) from error
        finally:
            bar.close()
            tap.close()
        return time.monotonic() - began

    def _checkpoint(self, step: int, seconds: float) -> None:
        meta = {"key": self.run.key, "step": step, "log": self.log, "looks": self.validations, "seconds": seconds}
        extra = {f"best:{name}": tensor for name, tensor in self.best.items()}
        for index, change in enumerate(self.built.changes):
            extra |= {f"change{index}:{name}": tensor for name, tensor in change.state().items()}
        checkpoint.save(self.folder / CHECKPOINT, self.weights, self.optimizer, meta, extra)

    def _validate(self, step: int) -> None:
        """Measure the loss on the validation rows every `eval_every` steps, and remember the best weights."""
        import torch

        if not self.validation or ((step + 1) % self.plan.eval_every and step + 1 != self.steps):
            return
        self.net.eval()
        total = 0.0
        with torch.no_grad():
            for first in range(0, len(self.validation), 2 * self.plan.batch_size):
                batch = self.train.batch(self.validation[first : first + 2 * self.plan.batch_size]).to(self.device)
                total += float(self._task_loss(self.net(**batch.inputs), batch)) * len(batch.rows)
        self.net.train()
        self.validations.append(total / len(self.validation))
        if self.validations[-1] == min(self.validations):
            self.best = {name: p.detach().clone() for name, p in self.weights.items()}

    def _stalled(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        if self.plan.patience is None or not self.validations:
            return False
        return len(self.validations) - 1 - int(np.argmin(self.validations)) >= self.plan.patience

    def _batches(self) -> list[list[int]]:
        lengths = [self.train.lengths[row] for row in self.rows]
        batches: list[list[int]] = []
        epoch = 0
        while len(batches) < self.passes:
            seed = self.run.tuning.seed * 1_000_003 + epoch
            order = training_order(lengths, self.plan.batch_size, self.plan.bucket, seed)
            batches += [[self.rows[i] for i in batch] for batch in order]
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
        for change in self.built.changes:
            change.after_backward(self.net, step, self.steps)
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.plan.clip)
        self.optimizer.step()
        for change in self.built.changes:
            change.after_step(self.net, step, self.steps)
        return {"step": float(step + 1), "lr": self._rate(step), **row} if row is not None else None

    def _forward_backward(
        self, rows: list[int], progress: float, share: float, tap: ActivationTap, logged: bool
    ) -> dict[str, float] | None:
        import torch

        batch = self.train.batch(rows).to(self.device)
        with self._mixed(), running(self.net, "a training batch"):
            output = self.net(**batch.inputs)
        task_loss = self._task_loss(output, batch)
        loss = task_loss if self.teacher is None else self._distilled(task_loss, output, batch)
        values = tap.take()
        smooth = self._density(values, batch, progress)
        if smooth is not None:
            loss = loss + smooth
        for change in self.built.changes:
            extra = change.penalty(self.net, progress)
            loss = loss if extra is None else loss + extra
        tap.take()  # what passes of a penalty's own left there
        if not bool(torch.isfinite(loss)):
            raise NumericError(
                f"tuning '{self.run.tuning.name}': the loss is {float(loss.detach())} after {progress:.0%} of the "
                "steps; lower train.lr or density.weight"
            )
        (loss * share).backward()
        if not logged:
            return None
        with torch.no_grad():
            real = [
                of_tokens(v, batch.real_at(s.name)) for v, s in zip(values, self.sites, strict=True) if v is not None
            ]
            return {
                "loss": float(loss),
                "task_loss": float(task_loss),
                "density_loss": math.nan if smooth is None else float(smooth),
                "density": self._share(real),
                "accuracy": self._accuracy(output, batch),
            }

    def _share(self, values: list[Any]) -> float:
        """Return the share of non-zeros; NaN in a model whose sites are not known, 0 where no block ran."""
        import torch

        places = sum(v.numel() for v in values)
        ones = sum(int(torch.count_nonzero(v)) for v in values)
        return ones / places if places else 0.0 if self.sites else math.nan

    @contextmanager
    def _mixed(self) -> Iterator[None]:
        """Autocast to the tuning's precision; fp16 needs CUDA, where a processor computes in fp32 instead."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.plan.precision)
        processor = self.device.type == "cpu"
        if kind is None or (processor and kind is torch.float16):
            yield
            return
        # on a processor the fused attention's backward pass in bf16 takes nine times as long as that in fp32
        attention = sdpa_kernel(SDPBackend.MATH) if processor else nullcontext()
        with torch.autocast(self.device.type, kind), attention:
            yield

    def _task_loss(self, output: Any, batch: Batch) -> Any:
        import torch

        if self.run.task == "regression":
            return torch.nn.functional.mse_loss(output.logits.squeeze(-1).float(), batch.labels)
        logits, targets = predictions(output, batch, self.run.task)
        return torch.nn.functional.cross_entropy(logits.float(), targets)

    def _distilled(self, task_loss: Any, output: Any, batch: Batch) -> Any:
        import torch

        distil = self.run.tuning.distil
        assert distil is not None
        if self.run.task == "regression":
            raise InputError("distil needs a distribution over classes, which a regression has not; leave it out")
        assert self.teacher is not None
        with torch.no_grad(), self._mixed():
            taught, _ = predictions(self.teacher(**batch.inputs), batch, self.run.task)
        own, _ = predictions(output, batch, self.run.task)
        t = distil.temperature
        gap = torch.nn.functional.kl_div(
            (own.float() / t).log_softmax(-1),
            (taught.float() / t).log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
        return (1.0 - distil.weight) * task_loss + distil.weight * t * t * gap

    def _density(self, values: list[Any], batch: Batch, progress: float) -> Any:
        """Return the weighted penalty on the density of the activations, or None without one."""
        loss = self.run.tuning.density
        if loss is None or not self.factors:
            return None
        terms = []
        for value, site, factor in zip(values, self.sites, self.factors, strict=True):
            if value is not None:
                counted = value.flatten(0, -2) if loss.count_padding else of_tokens(value, batch.real_at(site.name))
                gates = [g for c in self.built.changes if (g := c.density_factor(self.net, site)) is not None]
                term = factor * penalty(counted, loss, progress)
                terms.append(term * math.prod(gates) if gates else term)
        rise = min(1.0, progress / loss.warmup) if loss.warmup else 1.0
        return loss.weight * rise * sum(terms)

    def _accuracy(self, output: Any, batch: Batch) -> float:
        if self.run.task == "regression":
            return math.nan
        logits, targets = predictions(output, batch, self.run.task)
        return float((logits.argmax(-1) == targets).float().mean())

    def _write(self, seconds: float) -> TuneResult:
        """Measure on the held-out split, write every file, the measurements last: they mark the folder finished."""
        import pandas as pd

        run = self.run
        write_atomic(self.folder / "tuning.yaml", lambda p: p.write_text(run.tuning.to_yaml(), encoding="utf-8"))
        write_atomic(self.folder / "log.parquet", lambda p: pd.DataFrame(self.log).to_parquet(p))
        save_weights(self.net, self.folder, run.model)
        facts: dict[str, Any] = {}
        for change in self.built.changes:
            facts |= change.facts(self.net)
        # as it is deployed: blocks may be gone, weights rounded or pruned again after an adapter was folded into them
        deployed = self.built.merged()
        scores = evaluate(deployed, self.test, self._sites(deployed) if self.sites else [], run.task, self.progress)
        for change in self.built.changes:
            facts |= change.measured(deployed)
        measurements = {
            "schema": SCHEMA,
            "key": run.key,
            "model": run.model,
            "data": run.data,
            "task": run.task,
            "labels": run.labels,
            "tuning": run.tuning.name,
            "tuning_hash": run.tuning.hash,
            "method": run.tuning.method,
            "init": str(self.start.name) if self.start is not None else None,
            **({"sites": list(run.sites)} if run.sites else {}),
            **({"before": list(run.before)} if any(run.before) else {}),
            **scores,
            **facts,
            "trainable_parameters": sum(p.numel() for p in self.weights.values()),
            "train_samples": len(self.rows),
            "steps": int(self.log[-1]["step"]) if self.log else self.steps,
            "train_seconds": round(seconds, 3),
            "threads": _threads(),
            "device": self.device.type,
            "provenance": provenance(run.tuning.seed),
        }
        write_json(self.folder / MEASUREMENTS, measurements)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return open_result(self.folder)


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())
