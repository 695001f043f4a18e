"""Rows of ``simkit ls`` and of tab completion, one list for each kind."""

from __future__ import annotations

from typing import Any

KINDS = ("archs", "tunings", "models", "datasets", "tables", "figures")


SHOWN = (*(kind.removesuffix("s") for kind in KINDS[:-1]), "mapping")


def catalogue(kind: str) -> list[dict[str, Any]]:
    """List what there is of a kind."""
    import hwmodels
    import traces
    from hwmodels.errors import nearest
    from simkit.errors import InputError

    if kind == "figures":
        from simkit.plots import catalogue

        return [dict(row) for row in catalogue.catalogue()]
    if kind == "archs":
        loaded = [hwmodels.load_arch(name) for name in hwmodels.list_archs()]
        return [
            {"name": a.name, "title": a.title, "kernel": a.kernel, "sides": a.sides, "source": a.source} for a in loaded
        ]
    if kind == "tables":
        tables = [hwmodels.load_table(name) for name in hwmodels.list_tables()]
        return [
            {"name": t.name, "title": t.title, "rows": len(t.rows), "extends": ", ".join(t.extends)} for t in tables
        ]
    listers: dict[str, Any] = {
        "tunings": traces.list_tunings,
        "models": traces.list_models,
        "datasets": traces.list_datasets,
    }
    if kind not in listers:
        raise InputError(f"cannot list '{kind}'" + nearest(kind, KINDS))
    return [
        {"name": i.name, "title": i.title, "source": i.source, "licence": getattr(i, "licence", "")}
        for i in listers[kind]()
    ]
