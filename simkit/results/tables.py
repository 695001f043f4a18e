"""Tables for papers, from results or frames; `simkit.results.typeset` sets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from .columns import COLUMNS, Column, refuse_twins
from .result import Given, as_result
from .runs import Ops
from .typeset import Table, lay_out


def table(
    data: Given | pd.DataFrame,
    columns: Sequence[str] | Mapping[str, Column] | None = None,
    *,
    ops: Ops = None,
) -> Table:
    """Make a table of a result's runs, or of any frame.

    Parameters
    ----------
    data : path, Result, list of them, or DataFrame
        One row each run (`Result.summary`, with what was measured of its tuning), or a frame's rows.
    columns : sequence of str or mapping of str to Column, optional
        Which, in order; a name alone is printed as `simkit.results.columns.COLUMNS` says. Those of its view ``table``
        that are
        there, by default.
    ops : str or iterable of str, optional
        Only these ops of a result.

    Returns
    -------
    Table
        With `to_latex` and `to_markdown`.

    Raises
    ------
    InputError
        If a column is not there, naming the nearest.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", "cnvlutin", ops="down")
    >>> print(sk.table(result, ["arch", "density"]).to_markdown(), end="")
    | arch | density |
    | :--- | ---: |
    | cnvlutin | 0.181 |
    """
    frame = data if isinstance(data, pd.DataFrame) else as_result(data).summary(ops, measured=True)
    return lay_out(frame, columns)


def methods_table(data: pd.DataFrame) -> Table:
    """Make the table of a comparison of methods, one row each tuning, two columns each design.

    Parameters
    ----------
    data : DataFrame
        `simkit.explore.methods.flat`.

    Raises
    ------
    InputError
        If a tuning is there twice for one arch.
    """
    refuse_twins(data, ["tuning", "arch"])
    score = ["perplexity"] if "perplexity" in data else []
    shared = ["tuning", *score, "accuracy", "accuracy_se", "density", "trainable_parameters", "train_seconds"]
    wide = data.drop_duplicates("tuning")[shared].set_index("tuning")
    columns = {name: COLUMNS[name] for name in shared if name != "accuracy_se"}
    for arch, rows in data.groupby("arch", sort=False):
        own = rows.set_index("tuning")
        for name, title, unit in (("speedup", "speed-up", "×"), ("energy_ratio", "energy", "× of dense")):
            wide[f"{arch}.{name}"] = own[name]
            columns[f"{arch}.{name}"] = Column(f"{arch} {title}", unit)
    return lay_out(wide.reset_index(), columns)
