"""Evidence for each arch: checks against published figures, and errors on measurements by others."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from hwmodels import list_archs, list_tables, load_arch, load_table
from traces.fetch import cache_folder

from ..engine.keys import model_sources
from ..errors import StorageError
from ..files import whole
from ..provenance import key_of

Row = dict[str, Any]


@lru_cache(maxsize=1)
def published_rows() -> list[Row]:
    """Rows of `simkit.validation.published.validate_published`, from the cache where kernels and figures are the same.

    Returns
    -------
    list of dict
        Keys target, arch, source, published, ours, error (relative), verdict, reason; rows of derived costs also have
        evidence.
    """
    from ..validation import costs
    from ..validation import published as table

    figures = [Path(str(one.__file__)).read_text(encoding="utf-8") for one in (table, costs)]
    figures += [*(load_arch(name).hash for name in list_archs()), *(load_table(name).hash for name in list_tables())]
    # rows that need data from outside the package are skipped without them
    figures += [str(path.relative_to(table.REFERENCE)) for path in sorted(table.REFERENCE.glob("eyeriss_v2/*"))]
    path = cache_folder() / f"published-{key_of(model_sources(), *figures)}.json"
    try:
        rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    except (OSError, ValueError):
        pass
    rows = json.loads(json.dumps(table.validate_published(), default=lambda value: value.item()))
    # a cache that cannot be written costs ten seconds next time, nothing else
    with suppress(StorageError), whole(path) as partial:
        partial.write_text(json.dumps(rows), encoding="utf-8")
    return rows


@lru_cache(maxsize=1)
def measured_rows() -> list[Row]:
    """Errors of the GPU model on public measurements, as ``simkit validate --reference FOLDER --json`` printed them.

    Returns
    -------
    list of dict
        Keys set, model, quantity, device, rows_fit, rows_scored, mape_percent, p90_percent, bias_percent.
    """
    text = resources.files("simkit").joinpath("stored/gpu_public.json").read_text(encoding="utf-8")
    rows: list[Row] = json.loads(text)
    return rows


def _measured(name: str) -> str:
    rows = [row for row in measured_rows() if row["device"] == name and row["model"] == "calibrated"]
    return "; ".join(
        f"{row['quantity']} of {row['rows_scored']:,} rows of {row['set']}: mean error {row['mape_percent']:.1f} %"
        for row in rows
    )


def design_status(name: str) -> Row:
    """Summarise the checks of one design.

    Parameters
    ----------
    name : str
        Arch that ships here.

    Returns
    -------
    dict
        checks, exact, within, off (counts), worst (largest error, %), note; measured says how far the model was off on
        measurements by others, where there are any.
    """
    rows = [row for row in published_rows() if row["arch"] == name and row["error"] is not None]
    if not rows:
        return {
            "checks": 0,
            "exact": 0,
            "within": 0,
            "off": 0,
            "worst": None,
            "measured": _measured(name),
            "note": "" if _measured(name) else "no published or measured figure is held against this configuration",
        }
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("exact", "within band", "off")}
    worst = max(rows, key=lambda row: abs(row["error"]))
    return {
        "checks": len(rows),
        "exact": count["exact"],
        "within": count["within band"],
        "off": count["off"],
        "worst": 100 * abs(worst["error"]),
        "measured": _measured(name),
        "note": f"largest at: {worst['target']}" if worst["error"] else "",
    }
