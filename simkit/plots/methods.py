"""Tuning methods as points: what each reaches, and at which cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from ..results.columns import column_of, refuse_twins, require
from .style import AS_IS, axes, is_narrow, legend, legend_above, mark, plain_log, points, shown, styled
from .tradeoff import front

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@styled
def methods_front(table: pd.DataFrame, ax: Axes | None = None, *, arch: str | None = None) -> Axes:
    """Plot accuracy against density, or against energy per token on one design, one point a tuning.

    Parameters
    ----------
    table : path, DataFrame, or list of them
        `simkit.explore.methods.flat`: one row for each tuning and arch.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    arch : str, optional
        Design whose energy is the x axis; density by default.

    Returns
    -------
    Axes
        Vertical bars are one standard error over seeds; tunings on the Pareto front are ringed and joined by steps.

    Raises
    ------
    InputError
        If a column or the arch is not in the table, or a tuning is there twice.

    Examples
    --------
    >>> from simkit.explore.methods import aggregate, flat, stored_methods
    >>> table = flat(aggregate(stored_methods("minilm-l6")))
    >>> ax = sk.plots.methods_front(table)
    >>> ax.figure.savefig("figure.png")
    """
    x = "density" if arch is None else "energy_per_token_pj"
    require(table, ["tuning", "arch", "accuracy", "accuracy_se", x], "a comparison of methods")
    known = list(dict.fromkeys(table["arch"]))
    if arch is not None and arch not in known:
        raise InputError(f"the comparison has no design '{arch}'; it has: {', '.join(known)}")
    rows = table[table["arch"] == (arch or known[0])]
    refuse_twins(rows, ["tuning"])
    label, factor = column_of(x).axis(rows[x])
    narrow = is_narrow(ax)
    ax = axes(ax, 0.7 + 0.018 * len(rows) if narrow else 0.8)
    for index, row in enumerate(rows.itertuples()):
        ax.errorbar(
            getattr(row, x) * factor, row.accuracy, yerr=row.accuracy_se, **mark(index), markersize=0.6 * points(),
            elinewidth=0.1 * points(), label=shown(row.tuning), linestyle="none",
        )  # fmt: skip
    best = rows[front(rows, x, "accuracy", ("accuracy",))].sort_values(x)
    ax.step(best[x] * factor, best["accuracy"], where="post", color="black", linewidth=0.1 * points(), zorder=1)
    ring = {"markersize": points(), "markerfacecolor": "none", "markeredgecolor": "black"}
    ax.plot(best[x] * factor, best["accuracy"], "o", label="Pareto front", markeredgewidth=0.08 * points(), **ring)
    if rows[x].min() > 0 and rows[x].max() / rows[x].min() > 10:
        plain_log(ax, "x")
    ax.set_xlabel("density of the MLP activations" if arch is None else label.replace(" (", f" on {arch} ("), **AS_IS)
    ax.set_ylabel("held-out accuracy")
    ax.grid(True, axis="both")
    if narrow:
        legend_above(ax)
    else:
        legend(ax, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax
