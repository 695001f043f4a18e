"""What speaks for each design: its checks against published figures, computed once for each state of the kernels."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import Any

from .provenance import model_sources
from .sweep import cache_folder

Row = dict[str, Any]


@lru_cache(maxsize=1)
def published_rows() -> list[Row]:
    """Rows of `simkit.validate_published.validate_published`, from the cache where the kernels are the same.

    Returns
    -------
    list of dict
        Keys target, arch, source, published, ours, error (relative), verdict, reason.
    """
    from .validate_published import validate_published

    path = cache_folder() / f"published-{model_sources()}.json"
    try:
        rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    except (OSError, ValueError):
        pass
    rows = json.loads(json.dumps(validate_published(), default=lambda value: value.item()))
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(rows), encoding="utf-8")
        os.replace(partial, path)
    except OSError:
        pass  # a cache that cannot be written costs ten seconds next time, nothing else
    return rows


def design_status(name: str) -> Row:
    """Summarise the checks of one design.

    Parameters
    ----------
    name : str
        Arch that ships here.

    Returns
    -------
    dict
        checks, exact, within, off (counts), worst (largest error, %), note.
    """
    rows = [row for row in published_rows() if row["arch"] == name and row["verdict"] != "skipped"]
    if not rows:
        return {
            "checks": 0,
            "exact": 0,
            "within": 0,
            "off": 0,
            "worst": None,
            "note": "no published figure is held against this configuration",
        }
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("exact", "within band", "off")}
    worst = max(rows, key=lambda row: abs(row["error"]))
    return {
        "checks": len(rows),
        "exact": count["exact"],
        "within": count["within band"],
        "off": count["off"],
        "worst": 100 * abs(worst["error"]),
        "note": f"largest at: {worst['target']}" if worst["error"] else "",
    }
