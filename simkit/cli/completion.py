"""Shell completion of names: archs, tables, tunings, figures."""

from __future__ import annotations

from collections.abc import Iterable

import typer

STYLES = ("ieee", "acm", "slides")


def _starting(names: Iterable[str], word: str) -> list[str]:
    return [name for name in names if name.startswith(word)]


def archs(incomplete: str) -> list[str]:
    """Archs that ship or are registered."""
    import hwmodels

    return _starting(hwmodels.list_archs(), incomplete)


def tables(incomplete: str) -> list[str]:
    """Energy tables."""
    import hwmodels

    return _starting(hwmodels.list_tables(), incomplete)


def figures(incomplete: str) -> list[str]:
    """Figures of ``simkit plot``."""
    from simkit.plots.catalogue import drawers

    return _starting(drawers(), incomplete)


def styles(incomplete: str) -> list[str]:
    """Pages that figures are drawn for."""
    return _starting(STYLES, incomplete)


def kinds(incomplete: str) -> list[str]:
    """Kinds of things that can be listed."""
    from .listing import KINDS

    return _starting(KINDS, incomplete)


def kind(incomplete: str) -> list[str]:
    """Kinds of things that can be shown."""
    from .listing import SHOWN

    return _starting(SHOWN, incomplete)


def names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Things of the kind that was typed before."""
    from .listing import catalogue

    wanted = str(ctx.params.get("kind", "arch")).removesuffix("s") + "s"
    wanted = "archs" if wanted == "mappings" else wanted
    return _starting((row["name"] for row in catalogue(wanted)), incomplete)
