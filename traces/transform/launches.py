"""Launches of recorded tokens when decoded in batches, or verified several at a time.

A trace records each token once. In batched decoding a launch has one token of each of some sequences; in speculative
decoding it verifies some consecutive tokens of each. Which rows those are decides the union of their masks, and so
which weight rows a launch must read.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.chunks import StoredArrays
from ..storage.masks import OrderedMask, Site
from ..storage.trace import Trace


class Group(NamedTuple):
    """Launches of the same size: `rows` are a mask's rows, launch after launch, `size` of them in each."""

    size: int
    rows: NDArray[np.int64]


def decoding_phase(trace: StoredArrays) -> str:
    """Return the phase whose tokens are launched: ``decode``, or the prompts' where nothing was decoded."""
    return "decode" if bool((trace.tokens["phase"] == "decode").any()) else "prefill"


def launches(trace: Trace, batch: int = 1, speculative: int = 1) -> NDArray[np.int64]:
    """Number the launches.

    Sequences are taken `batch` at a time, in the order of the recording, each `speculative` tokens at a time; a
    sequence that ends earlier leaves its launches smaller.

    Parameters
    ----------
    trace : Trace
        Tokens that were decoded; of a trace without any, the prompts' tokens as if they had been.
    batch : int
        Sequences in a launch.
    speculative : int
        Consecutive tokens of each.

    Returns
    -------
    int64[rows]
        Of each of the trace's rows; -1 for rows that are not decoded.

    Raises
    ------
    InputError
        If one of them is below 1.
    """
    for name, value in (("batch", batch), ("speculative", speculative)):
        if value < 1:
            raise InputError(f"{name} = {value}: a launch has at least 1")
    found = np.full(trace.rows, -1, dtype=np.int64)
    chosen = np.flatnonzero(trace.selected(True, decoding_phase(trace)))
    if not len(chosen):
        return found
    frame = trace.tokens.iloc[chosen]
    names, first = np.unique(frame["sequence"].to_numpy(), return_index=True)
    place = np.empty(len(names), dtype=np.int64)  # of each sequence in the order of the recording
    place[np.argsort(first, kind="stable")] = np.arange(len(names))
    sequence = place[np.searchsorted(names, frame["sequence"].to_numpy())]
    start = frame.groupby("sequence")["position"].transform("min").to_numpy()
    step = (frame["position"].to_numpy() - start) // speculative
    _, number = np.unique(np.stack([sequence // batch, step]), axis=1, return_inverse=True)
    found[chosen] = np.asarray(number).reshape(-1)
    return found


def groups(numbers: NDArray[np.int64]) -> list[Group]:
    """Sort rows by launch, and launches by size.

    Parameters
    ----------
    numbers : int64[M]
        The launch of each row, none below 0.

    Returns
    -------
    list of Group
        In ascending order of size.
    """
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    order = np.argsort(np.asarray(place).reshape(-1), kind="stable")
    size = np.repeat(counts, counts)  # of the launch of each sorted row
    return [Group(int(one), order[size == one]) for one in np.unique(counts)]


def grouped_masks(site: Site, numbers: NDArray[np.int64]) -> list[tuple[int, OrderedMask]]:
    """Return a site's masks launch after launch, a mask for each size of launch.

    Parameters
    ----------
    site : Site
        Any of the trace that `numbers` is of; of an expert, the rows that were routed to it.
    numbers : int64[rows]
        As `launches` returns them.
    """
    phase = decoding_phase(site.trace)
    mask, rows = site.mask(phase=phase), site.rows(phase=phase)
    return [(group.size, OrderedMask(mask, group.rows)) for group in groups(numbers[rows])]
