"""What the figures ask of a result, with the errors they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import InputError

if TYPE_CHECKING:
    from hwmodels import Arch

    from ..results.result import Result

Ops = str | Iterable[str] | None


def op_names(result: Result, ops: Ops) -> list[str] | None:
    """Check the wanted ops against the result's; None stays None.

    Raises
    ------
    InputError
        If the result has none of them.
    """
    from hwmodels.errors import nearest

    if ops is None:
        return None
    wanted = [ops] if isinstance(ops, str) else list(ops)
    known = list(dict.fromkeys(result.frame["op"]))
    if not set(wanted) & set(known):
        raise InputError(f"the result has no op '{', '.join(wanted)}'" + nearest(wanted[0] if wanted else "", known))
    return wanted


def summary(result: Result, ops: Ops) -> pd.DataFrame:
    """One row for each trace and arch, as `Result.summary`, of the wanted ops."""
    if result.frame.empty:
        raise InputError("the result has no rows; replay at least one trace on one arch")
    return result.summary(op_names(result, ops))


def op_table(result: Result, ops: Ops) -> pd.DataFrame:
    """One row for each op, as `Result.ops`, of the wanted ops."""
    wanted = op_names(result, ops)
    frame = result.ops
    return frame if wanted is None else frame[frame["op"].isin(wanted)]


def action_table(result: Result, ops: Ops) -> pd.DataFrame:
    """The result's long frame, of the wanted ops."""
    wanted = op_names(result, ops)
    return result.frame if wanted is None else result.frame[result.frame["op"].isin(wanted)]


def require(frame: pd.DataFrame, names: Sequence[str], what: str) -> None:
    """Raise InputError where a column is missing, naming the nearest."""
    from hwmodels.errors import nearest

    for name in names:
        if name not in frame:
            raise InputError(f"{what} has no column '{name}'" + nearest(name, frame.columns))


def measured(result: Result, name: str) -> dict[str, float]:
    """One measured figure of each run's tuning, by run id; runs without it are left out."""
    found = {}
    for run, meta in result.meta["runs"].items():
        value = meta["trace"].get("measurements", {}).get(name)
        if isinstance(value, int | float):
            found[run] = float(value)
    return found


def arch_of(meta: dict[str, Any]) -> Arch:
    """Rebuild the arch of a run from its name, overrides included.

    Raises
    ------
    InputError
        If it is unknown here, or not what the run used.
    """
    from ..engine.replay import arch

    key = (str(meta["arch"]["name"]), str(meta["arch"]["hash"]))
    if key in _ARCHS:
        return _ARCHS[key]
    name, bracket, changes = meta["arch"]["name"].partition("[")
    words = re.split(r",(?=[\w.]+=)", changes.removesuffix("]")) if bracket else []
    pairs = (word.partition("=") for word in words)
    found = arch(name, **{key.replace(".", "__"): _number(value) for key, _, value in pairs})
    if found.hash != meta["arch"]["hash"]:
        raise InputError(f"arch '{meta['arch']['name']}' has changed since this run; give the one it used: archs=[...]")
    return _ARCHS.setdefault(key, found)


# reading a YAML takes a quarter of a second, and a report asks for each design many times
_ARCHS: dict[tuple[str, str], Arch] = {}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(text, text)
