"""Figures of the generated pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hwmodels

M, K, N = 512, 1536, 384
DENSITIES = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


def density_curve(name: str, out: Path) -> None:
    """Draw a design's speed-up in cycles against the density of i.i.d. masks."""
    import matplotlib as mpl

    mpl.use("agg")
    from simkit.plots.catalogue import save
    from simkit.plots.style import PALETTE, axes, plain_log, rc

    arch = hwmodels.load_arch(name)
    gains = []
    for density in DENSITIES:
        mask = hwmodels.PackedMask.bernoulli(M, K, density, seed=1)
        op = hwmodels.Op("down", 0, M, K, N, activation=mask, weight=hwmodels.OnesMask(N, K), batch=1)
        counts = hwmodels.simulate(op, arch)
        gains.append(counts.dense_cycles / counts.cycles if counts.cycles else float("nan"))
    with mpl.rc_context(rc()):
        ax = axes(None, 0.5)
        ends = (min(DENSITIES), 1.0)
        ax.plot(ends, [1 / end for end in ends], "--", color="black", linewidth=1, label="1 / density")
        ax.plot(DENSITIES, gains, "o-", color=PALETTE[0], label=name)
        ax.axhline(1.0, color="#888888", linewidth=0.8)
        plain_log(ax, "x")
        plain_log(ax, "y")
        ax.grid(True, axis="both")
        ax.set_xlabel("density of the activations")
        ax.set_ylabel("speed-up in cycles (×)")
        ax.legend()
        save(ax, out)


def methods(model: str, out: Path) -> None:
    """Draw what a model's tunings reach at which density."""
    import matplotlib as mpl

    mpl.use("agg")
    from simkit import plots
    from simkit.explore import methods
    from simkit.plots.catalogue import save

    save(plots.methods_front(methods.flat(methods.aggregate(methods.stored_methods(model)))), out)


def refit(rows: list[dict[str, Any]], out: Path) -> None:
    """Draw accuracy against density of swapped activations, with and without fitted down-projections."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    from simkit.plots.catalogue import save
    from simkit.plots.style import PALETTE, plain_log, rc

    kinds = {None: "swap alone", "bias": "biases fitted", "weights": "weights fitted"}
    models = list(dict.fromkeys(row["model"] for row in rows))
    with mpl.rc_context(rc()):
        figure, all_axes = plt.subplots(1, len(models), figsize=(7, 2.6), sharey=True, layout="constrained")
        for ax, model in zip(all_axes, models, strict=True):
            mine = [row for row in rows if row["model"] == model]
            dense = next(row for row in mine if row["type"] is None)
            ax.axhline(dense["accuracy"], linestyle="--", color="black", linewidth=1, label="own activation")
            for color, (kind, label) in zip(PALETTE, kinds.items(), strict=False):
                cut = sorted((r["density"], r["accuracy"]) for r in mine if r["target"] and r["refit"] == kind)
                swap = next(r for r in mine if r["type"] == "relu" and r["refit"] == kind)
                ax.plot(*zip(*cut, strict=True), "o-", color=color, label=f"{label}, threshold")
                ax.plot(swap["density"], swap["accuracy"], "^", color=color, label=f"{label}, ReLU")
            plain_log(ax, "x")
            ax.grid(True, axis="both")
            ax.set_title(f"{model} on {dense['data']}")
            ax.set_xlabel("density of the activations")
        all_axes[0].set_ylabel("accuracy")
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right center")
        save(all_axes[0], out)
