"""BibTeX for what a result used."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import Result


def bibliography() -> dict[str, str]:
    """Entries of ``hwmodels/references.bib`` by key."""
    text = resources.files("hwmodels").joinpath("references.bib").read_text(encoding="utf-8")
    entries = [entry.strip() for entry in re.split(r"(?m)^(?=@)", text) if entry.strip().startswith("@")]
    return {entry.split("{", 1)[1].split(",", 1)[0].strip(): entry for entry in entries}


def cite(result: Result) -> str:
    """Return BibTeX entries for the archs, their figures, the energy tables and the tunings in a result.

    Parameters
    ----------
    result : Result
        Replays.

    Returns
    -------
    str
        Entries in order of first use, and a comment for each source without one.
    """
    import hwmodels

    wanted: list[str] = []
    for meta in result.meta["runs"].values():
        wanted.append(meta["arch"]["source"])
        name = meta["arch"]["name"].split("[", 1)[0]
        if name in hwmodels.list_archs():
            wanted += _sources(hwmodels.load_arch(name).model_dump())
        wanted += _sources(hwmodels.load_table(meta["table"]["name"]).model_dump())
        wanted += [str(key) for key in meta["trace"].get("tuning", {}).get("cite", [])]
    known = bibliography()
    return "\n\n".join(known[key] for key in dict.fromkeys(wanted) if key in known) + "\n"


def _sources(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        own = [str(tree["source"])] if isinstance(tree.get("source"), str) else []
        return own + [key for value in tree.values() for key in _sources(value)]
    if isinstance(tree, list):
        return [key for value in tree for key in _sources(value)]
    return []
