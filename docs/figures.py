"""Figures of the generated pages."""

from __future__ import annotations

from pathlib import Path

import hwmodels

M, K, N = 512, 1536, 384
DENSITIES = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


def density_curve(name: str, out: Path) -> None:
    """Draw a design's speed-up in cycles against the density of i.i.d. masks."""
    import matplotlib as mpl

    mpl.use("agg")
    from simkit.figures import save
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
    from simkit import compare, plots
    from simkit.figures import save

    save(plots.methods_front(compare.flat(compare.aggregate(compare.stored_methods(model)))), out)
