"""Measure a tuned model on held-out items: accuracy with its standard error, and density."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..batches import collate, sorted_order
from ..sites import MLPSite
from .density import ActivationTap

BATCH = 64


def evaluate(
    net: Any, tokens: Sequence[Sequence[int]], labels: Sequence[int], sites: list[MLPSite], pad: int, progress: bool
) -> dict[str, Any]:
    """Return accuracy and density over held-out items.

    Parameters
    ----------
    net : torch.nn.Module
        A classifier.
    tokens : sequence of token lists
        The items.
    labels : sequence of int
        Their classes.
    sites : list of MLPSite
        Where density is counted.
    pad : int
        Padding token.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    dict
        ``accuracy``; ``accuracy_se`` = sqrt(p (1 - p) / n); ``density``, the share of non-zeros over real tokens;
        ``density_per_layer``; ``density_paper``, as the released code of DEFT counts: per sample with padding, then
        averaged over samples and layers.
    """
    import torch
    from tqdm.auto import tqdm

    tap = ActivationTap(net, sites)
    training = net.training
    net.eval()
    right = real_tokens = 0
    ones = np.zeros(len(sites))
    padded_share = np.zeros(len(sites))
    batches = sorted_order([len(t) for t in tokens], BATCH)
    try:
        with torch.inference_mode():
            for rows in tqdm(
                batches, desc="held-out", unit="batch", file=sys.stderr, disable=not progress, leave=False
            ):
                batch = collate(tokens, rows, pad)
                wanted = torch.tensor([labels[r] for r in rows])
                right += int((net(**batch.inputs).logits.argmax(-1) == wanted).sum())
                real_tokens += int(batch.mask.sum())
                for i, value in enumerate(tap.values):
                    non_zero = value != 0
                    ones[i] += int(torch.count_nonzero(non_zero[batch.mask]))
                    padded_share[i] += int(torch.count_nonzero(non_zero)) / non_zero[0].numel()
                tap.values = []
    finally:
        tap.close()
        net.train(training)
    n = len(tokens)
    accuracy = right / n
    per_layer = ones / (real_tokens * np.array([s.k for s in sites]))
    widths = np.array([s.k for s in sites], dtype=float)
    return {
        "accuracy": accuracy,
        "accuracy_se": math.sqrt(accuracy * (1 - accuracy) / n),
        "test_samples": n,
        "density": float((per_layer * widths).sum() / widths.sum()),
        "density_per_layer": per_layer.tolist(),
        "density_paper": float((padded_share / n).mean()),
    }
