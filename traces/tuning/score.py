"""Scores of a task's outputs: correct answers, perplexity, error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from ..data.batches import Batch

LANGUAGE = ("causal-lm", "seq2seq")


def predictions(output: Any, batch: Batch, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and targets of the places that count, with a next-token shift for causal language models.

    Returns
    -------
    logits : float tensor (places, classes)
    targets : int64 tensor (places,)
    """
    logits, labels = output.logits, batch.labels
    if task == "causal-lm":
        # prompt tokens that a tuning puts in front have logits but no labels
        logits, labels = logits[:, -labels.shape[1] : -1], labels[:, 1:]
    if task in LANGUAGE:
        counted = labels != -100
        return logits[counted], labels[counted]
    return logits, labels


class Scores:
    """Collects a task's scores over batches.

    Parameters
    ----------
    task : str
        One of `traces.models.load.TASKS`.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self._rows: list[tuple[float, float, float]] = []  # each item's loss sum, right answers, answers

    def add(self, output: Any, batch: Batch) -> None:
        """Take one batch's outputs."""
        import torch

        if self.task == "regression":
            guess = output.logits.squeeze(-1).float()
            self._rows += list(
                zip(((guess - batch.labels) ** 2).tolist(), guess.tolist(), batch.labels.tolist(), strict=True)
            )
            return
        logits, targets = predictions(output, batch, self.task)
        losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        right = logits.argmax(-1) == targets
        items = _items(batch, self.task)
        for item in range(len(batch.rows)):
            own = items == item
            self._rows.append((float(losses[own].sum()), float(right[own].sum()), float(own.sum())))

    def result(self) -> dict[str, Any]:
        """Return the scores with standard errors over items.

        Returns
        -------
        dict
            Classification: ``accuracy``, ``accuracy_se`` = sqrt(p (1 - p) / n). Language models: ``accuracy`` of single
            tokens, ``perplexity`` = exp(mean token loss), and their standard errors by the ratio estimator over
            sequences. Regression: ``rmse``, ``rmse_se``, ``pearson``.
        """
        loss, right, count = np.array(self._rows).T
        n = len(loss)
        if self.task == "regression":
            rmse = math.sqrt(loss.mean())
            spread = loss.std(ddof=1) / math.sqrt(n) / (2 * rmse) if n > 1 and rmse else 0.0
            return {"rmse": rmse, "rmse_se": spread, "pearson": float(np.corrcoef(right, count)[0, 1])}
        accuracy = right.sum() / count.sum()
        if self.task not in LANGUAGE:
            return {"accuracy": accuracy, "accuracy_se": math.sqrt(accuracy * (1 - accuracy) / n)}
        mean = loss.sum() / count.sum()
        perplexity = math.exp(mean)
        return {
            "accuracy": accuracy,
            "accuracy_se": _ratio_se(right, count, accuracy),
            "perplexity": perplexity,
            "perplexity_se": perplexity * _ratio_se(loss, count, mean),
            "test_tokens": int(count.sum()),
        }


def _items(batch: Batch, task: str) -> Any:
    """Return which item of the batch each counted place belongs to."""
    import torch

    labels = batch.labels
    assert labels is not None
    if task not in LANGUAGE:
        return torch.arange(len(labels))
    labels = labels[:, 1:] if task == "causal-lm" else labels
    return torch.nonzero(labels != -100)[:, 0]


def _ratio_se(part: Any, whole: Any, ratio: float) -> float:
    n = len(part)
    residual = part - ratio * whole
    return float(math.sqrt((residual**2).sum() / max(1, n - 1) * n) / whole.sum())
