"""What a recording will do, settled before the first pass: which sequences, in which batches, at what budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .batches import sorted_order
from .errors import InputError
from .inputs import Inputs
from .models import default_task

SEQUENCES = 256
ORDER_SEED = 5


@dataclass(frozen=True)
class Budget:
    """How much to record; whichever ends first.

    Parameters
    ----------
    limit : int, optional
        Sequences; 256 where there is no other budget, all where there is one.
    tokens : int, optional
        Real tokens: whole sequences, in the data set's order, until there are as many.
    seconds : float, optional
        Of forward passes, over all runs of a recording that was stopped. Batches then come in a shuffled order, so
        that what fits is no sample of short sequences.
    layers : str or tuple of int, optional
        Which layers' sites.

    Raises
    ------
    InputError
        If one of them is not positive.
    """

    limit: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    layers: str | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "tokens", "seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"--{name} {value}: must be above zero")

    def sequences(self, data: str, there: int) -> int:
        """Return how many sequences may be taken of those that are there.

        Raises
        ------
        InputError
            If there are fewer than were asked for.
        """
        asked = self.limit or (SEQUENCES if self.tokens is None and self.seconds is None else there)
        if asked > there:
            raise InputError(f"--limit {asked}: data set '{data}' has {there} held-out sequences; ask for no more")
        return asked

    def asked(self) -> dict[str, Any]:
        """Return what was asked for, as plain data."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Plan:
    """The batches of a recording.

    Parameters
    ----------
    inputs : Inputs
        Every sequence that may be taken.
    budget : Budget
        How many are.
    batch_size : int
        Sequences in a pass.
    added : int
        Tokens a sequence has beside its own: generated ones.
    data : str
        The data set's name, for an error line.

    Raises
    ------
    InputError
        If all sequences together have fewer tokens than the budget.
    """

    def __init__(self, inputs: Inputs, budget: Budget, batch_size: int, added: int, data: str) -> None:
        self.inputs, self.budget = inputs, budget
        lengths = np.asarray(inputs.lengths) + added
        self.sequences = len(lengths)
        if budget.tokens is not None:
            reached = np.cumsum(lengths)
            if reached[-1] < budget.tokens:
                raise InputError(
                    f"--tokens {budget.tokens}: the {len(lengths)} held-out sequences of data set '{data}' have "
                    f"{reached[-1]} tokens; ask for no more, or raise --limit or the maximal length"
                )
            self.sequences = int(np.searchsorted(reached, budget.tokens)) + 1
        self.order = sorted_order(inputs.lengths[: self.sequences], batch_size)
        if budget.seconds is not None:
            shuffled = np.random.Generator(np.random.PCG64(ORDER_SEED)).permutation(len(self.order))
            self.order = [self.order[i] for i in shuffled]

    def capacity(self, more: int) -> int:
        """Rows of all batches, padding among them, with `more` rows for each sequence."""
        return sum(len(rows) * (max(self.inputs.lengths[r] for r in rows) + more) for rows in self.order)

    def key(self, *facts: Any) -> str:
        """SHA-256 of all that decides the trace's content."""
        digest = hashlib.sha256(self.inputs.fingerprint())
        digest.update(json.dumps([self.budget.asked(), self.order, *facts], sort_keys=True).encode())
        return digest.hexdigest()


def choose_task(model: str, tuned: dict[str, Any] | None, task: str | None, new_tokens: int) -> str:
    """Decide which head to load, and refuse what text alone cannot run.

    Raises
    ------
    InputError
        If recording cannot run such a model.
    """
    found = str(tuned["measurements"]["task"]) if tuned else task or default_task(model)
    if found not in ("classification", "regression", "causal-lm", "features"):
        raise InputError(f"task '{found}': text alone does not run such a model; record encoders and causal decoders")
    if new_tokens < 0:
        raise InputError(f"new_tokens {new_tokens}: must not be negative")
    if new_tokens and found != "causal-lm":
        raise InputError(f"new_tokens {new_tokens}: decoding needs a causal language model, '{model}' is for {found}")
    return found


def tuning_of(model: str, adapter: str | Path | None) -> dict[str, Any] | None:
    """Read what a trace keeps of a tuning.

    Raises
    ------
    InputError
        If it was made on another model.
    """
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


def as_budget(
    limit: int | None, tokens: int | None, seconds: float | None, layers: str | Sequence[int] | None
) -> Budget:
    """Make a budget of what the caller gave."""
    return Budget(limit, tokens, seconds, layers if layers is None or isinstance(layers, str) else tuple(layers))
