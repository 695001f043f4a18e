"""BibTeX for what a result used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import Given, Result

# A figure's source is a key of the bibliography, or a phrase that says why a number was assumed.
KEY = re.compile(r"[a-z]+(19|20)\d\d\w*")
IDENTIFIER = re.compile(r"10\.\d{4,}/[^\s,;}]+|(?<=arXiv[ :])\d{4}\.\d{4,5}|(?<![\d./])\d{4}\.\d{5}(?!\d)")


@lru_cache(maxsize=1)
def bibliography() -> dict[str, str]:
    """Entries of ``hwmodels/references.bib`` by key."""
    text = resources.files("hwmodels").joinpath("references.bib").read_text(encoding="utf-8")
    entries = [entry.strip() for entry in re.split(r"(?m)^(?=@)", text) if entry.strip().startswith("@")]
    return {entry.split("{", 1)[1].split(",", 1)[0].strip(): entry for entry in entries}


def cite(result: Given) -> str:
    """Return BibTeX entries for the archs, their figures, the energy rows and the tunings in a result.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays.

    Returns
    -------
    str
        Entries in order of first use. A source that is a key without an entry becomes a comment that names it;
        a tuning method whose paper is not in the bibliography becomes an entry from its own statement.

    Examples
    --------
    >>> print(sk.cite(sk.replay("minilm_relu_small.zarr", "cnvlutin", ops="down")).splitlines()[0])
    @inproceedings{albericio2016cnvlutin,
    """
    from .result import as_result

    result, known = as_result(result), bibliography()
    parts = []
    for source in dict.fromkeys(sources(result)):
        if source in known:
            parts.append(known[source])
        elif KEY.fullmatch(source):
            parts.append(f"% no entry for '{source}' in hwmodels/references.bib")
    parts += method_entries(result, known)
    return "\n\n".join(dict.fromkeys(parts)) + "\n"


def sources(result: Result) -> list[str]:
    """Every source behind a result's numbers, in order of first use, phrases included."""
    import hwmodels

    from .runs import arch_of

    found: list[str] = []
    for meta in result.meta["runs"].values():
        found.append(meta["arch"]["source"])
        try:
            arch = arch_of(meta)
        except ValueError:
            continue  # of an earlier version: the source above is all that the run says
        found += _sources(arch.model_dump())
        if meta["table"]["name"] not in hwmodels.list_tables():
            continue  # the user's own table
        table = hwmodels.load_table(meta["table"]["name"])
        rows = dict.fromkeys(row for action in arch.actions.values() for row in action.rows)
        found += [table.row(row).energy.source for row in rows]
    return found


def method_entries(result: Result, known: dict[str, str]) -> list[str]:
    """BibTeX of the tuning methods: the bibliography's entry with the same DOI or arXiv number, or one made of it."""
    entries = []
    for name, text in _methods(result).items():
        for identifier in IDENTIFIER.findall(text):
            same = [entry for entry in known.values() if identifier in entry]
            entries += same or [_misc(name, identifier, text)]
    return entries


def _methods(result: Result) -> dict[str, str]:
    from traces.tuning import list_methods

    names = [m["trace"].get("tuning", {}).get("method") for m in result.meta["runs"].values()]
    return {name: list_methods()[name].source for name in dict.fromkeys(names) if name in list_methods()}


def _misc(name: str, identifier: str, text: str) -> str:
    kind = "doi" if identifier.startswith("10.") else "eprint"
    author, title = _named(text.partition(identifier)[0])
    fields = {"author": author, "title": title or f"arXiv {identifier}", kind: identifier}
    fields |= {} if kind == "doi" else {"archiveprefix": "arXiv"}
    lines = ",\n".join(f"  {field} = {{{value}}}" for field, value in fields.items() if value)
    return f"@misc{{{f'{name}_{identifier}'.replace('/', '_')},\n{lines}\n}}"


def _named(before: str) -> tuple[str, str]:
    """Author and title as a method's statement gives them before an identifier: ``Liu et al., DoRA: ..., arXiv ``."""
    own = re.split(rf";|(?:{IDENTIFIER.pattern})(?:, and)?", before)[-1]
    own = re.sub(r"[, ]*(arXiv|doi)?[ :]*$", "", own).strip().replace("{", "").replace("}", "")
    # what leads to a name: "its gates follow", "group-wise scales:"
    own = re.sub(r"^(?:[a-z][\w:-]* )+", "", own)
    named = re.match(r"(\w+) et al\.(?:, )?(.*)|(\w+ and \w+)(?:, )?(.*)", own)
    if named is None:
        return "", own
    first, title, pair, other = named.groups()
    return (f"{first} and others", title) if first else (pair, other)


def _sources(tree: Any) -> Iterable[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("source"), str):
            yield tree["source"]
        for value in tree.values():
            yield from _sources(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _sources(value)
