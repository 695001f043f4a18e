"""Comparison of two results, run by run: the effect of a changed design or trace."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..errors import InputError
from .columns import view
from .result import Given, Result, as_result
from .runs import Ops


def diff(a: Given, b: Given, ops: Ops = None) -> pd.DataFrame:
    """Compare two results, run by run.

    Runs are paired by the labels of their trace and arch (`Result.labels`). Where no arch is in both, as after
    ``arch.with_(lanes=32)``, each trace must be on one arch in each result, and those are paired; likewise traces.

    Parameters
    ----------
    a, b : path, Result, or list of them
        Before and after.
    ops : str or list, optional
        Only these ops, e.g. ``"down"``.

    Returns
    -------
    pandas.DataFrame
        One row for each pair and quantity: trace, arch (``x -> y`` where they differ), quantity, a, b, ratio = b / a;
        the quantities are those columns of a summary that `simkit.results.columns` compares, and stalls as ``stall:
        <cause>``,
        in unit-cycles and over all ops. ``attrs["unpaired"]`` lists the runs that are in one result alone.

    Raises
    ------
    InputError
        If the runs cannot be paired, or a result lacks one of the ops.

    Examples
    --------
    >>> before = sk.replay("minilm_relu_small.zarr", "cnvlutin", ops="down")
    >>> after = sk.replay("minilm_relu_small.zarr", sk.arch("cnvlutin", lanes=32), ops="down")
    >>> frame = sk.diff(before, after).set_index("quantity")
    >>> bool(frame.loc["cycles", "ratio"] < 1)
    True
    """
    left, right = ({_key(row): row for row in _rows(as_result(result), ops)} for result in (a, b))
    pairs = _pairs(list(left), list(right))
    rows = []
    for mine, theirs in pairs:
        names = dict(zip(("trace", "arch"), map(_arrow, mine, theirs), strict=True))
        before, after = left[mine], right[theirs]
        for quantity in [*view("diff"), *sorted({q for q in {**before, **after} if q.startswith("stall: ")})]:
            x, y = before.get(quantity, 0), after.get(quantity, 0)
            rows.append({**names, "quantity": quantity, "a": x, "b": y, "ratio": y / x if x else None})
    table = pd.DataFrame(rows)
    paired = {key for pair in pairs for key in pair}
    table.attrs["unpaired"] = [" on ".join(key) for key in dict.fromkeys([*left, *right]) if key not in paired]
    return table


def _rows(result: Result, ops: Ops) -> list[dict[str, Any]]:
    rows = [{str(name): value for name, value in row.items()} for row in result.summary(ops).to_dict("records")]
    for row in rows if ops is None else []:
        stalls = result.meta["runs"][row["run"]].get("stalls") or {}
        row |= {f"stall: {cause}": count for cause, count in stalls.items()}
    return rows


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["trace"]), str(row["arch"])


def _arrow(mine: str, theirs: str) -> str:
    return mine if mine == theirs else f"{mine} -> {theirs}"


def _pairs(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Pair runs by trace and arch, or by the one of both that still tells them apart."""
    both = [key for key in left if key in right]
    if both:
        return [(key, key) for key in both]
    for part in (0, 1):
        mine, theirs = ({key[part]: key for key in keys} for keys in (left, right))
        shared = [name for name in mine if name in theirs]
        if shared and len(mine) == len(left) and len(theirs) == len(right):
            return [(mine[name], theirs[name]) for name in shared]
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    (trace, arch), (other, another) = left[0], right[0]
    raise InputError(
        f"{len(left)} and {len(right)} runs cannot be paired ('{trace}' on '{arch}' ... with '{other}' on '{another}' "
        "...): no trace is on the same arch in both, and neither traces nor archs alone tell the runs apart; compare "
        "results of one trace, or of one arch"
    )
