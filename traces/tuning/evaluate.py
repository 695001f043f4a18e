"""Measure a tuned model on held-out items: its task's score with a standard error, and density."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..data.batches import sorted_order
from ..data.items import Inputs
from ..models.experts import recorded_experts
from ..models.limits import running
from ..models.sites import MLPSite
from .activations import ActivationTap, of_tokens
from .score import LANGUAGE, Scores

BATCH = 64
BATCH_LANGUAGE = 16  # a language model's logits are as wide as its vocabulary


def evaluate(net: Any, inputs: Inputs, sites: list[MLPSite], task: str, progress: bool) -> dict[str, Any]:
    """Return score and density over held-out items.

    Parameters
    ----------
    net : torch.nn.Module
        A model with a head for the task.
    inputs : Inputs
        The items.
    sites : list of MLPSite
        Where density is counted; where there are none, it is None.
    task : str
        One of `traces.models.load.TASKS`.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    dict
        The scores of `traces.tuning.score`; ``density``, the share of non-zeros over real tokens, weighted by the
        sites' sizes; ``density_per_layer``; ``density_paper``, as the released code of DEFT counts: per sample with
        padding, then averaged over samples and layers.
    """
    import torch
    from tqdm.auto import tqdm

    tap = ActivationTap(net, sites)
    training, device = net.training, next(net.parameters()).device
    net.eval()
    scores = Scores(task)
    ones, places = np.zeros(len(sites)), np.zeros(len(sites))
    padded_share = np.zeros(len(sites))
    batches = sorted_order(inputs.lengths, BATCH_LANGUAGE if task in LANGUAGE else BATCH)
    try:
        with torch.inference_mode(), recorded_experts(net, sites, tap):
            for rows in tqdm(
                batches, desc="held-out", unit="batch", file=sys.stderr, disable=not progress, leave=False
            ):
                batch = inputs.batch(rows).to(device)
                with running(net, "a held-out batch"):
                    output = net(**batch.inputs)
                scores.add(output, batch)
                for i, value in enumerate(tap.take()):
                    if value is None:  # a block that was dropped, or that no token was routed to
                        continue
                    real = of_tokens(value, batch.real_at(sites[i].name)) != 0
                    ones[i] += int(torch.count_nonzero(real))
                    places[i] += real.numel()
                    padded_share[i] += int(torch.count_nonzero(value)) * len(rows) / value.numel()
    finally:
        tap.close()
        net.train(training)
    ran = places > 0
    per_layer = np.divide(ones, places, out=np.zeros_like(ones), where=ran)
    if not sites:
        return {**scores.result(), "test_samples": len(inputs), "density": None}
    return {
        **scores.result(),
        "test_samples": len(inputs),
        "density": float(ones.sum() / places.sum()) if ran.any() else 0.0,
        "density_per_layer": per_layer.tolist(),
        "density_paper": float((padded_share[ran] / len(inputs)).mean()) if ran.any() else 0.0,
    }
