"""Runs of a Result: the arch whole, what was measured of the tuning, and labels that tell each run from the others."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import InputError

if TYPE_CHECKING:
    from hwmodels import Arch
    from traces import Trace

Json = dict[str, Any]
Ops = str | Iterable[str] | None
NAMES = ["trace", "tuning", "arch"]
# what recordings and imports call the tuning of a model that was not tuned
UNTUNED = ("", "none", "imported")
# two variants of one name that differ in more fields than this are told apart by hash
MOST_FIELDS = 3
HASH_DIGITS = 6
PATH_PARTS = 4


def op_list(ops: Ops, known: Iterable[str], owner: str) -> list[str] | None:
    """Check the names of ops: the one rule for results, traces, figures, tables, sweeps and commands.

    Parameters
    ----------
    ops : str or iterable of str, optional
        Wanted ops; None is all.
    known : iterable of str
        Ops that there are.
    owner : str
        What should have them, for the error: ``the result``, ``trace 'a'``.

    Returns
    -------
    list of str or None
        The wanted ops, each once.

    Raises
    ------
    InputError
        If one is unknown, naming the nearest, or the list is empty.
    """
    if ops is None:
        return None
    wanted = list(dict.fromkeys([ops] if isinstance(ops, str) else ops))
    if not wanted:
        raise InputError("ops is an empty list; name at least one op, or leave it out for all")
    there = set(known)
    for name in wanted:
        if name not in there:
            from hwmodels.errors import nearest

            raise InputError(f"{owner} has no op '{name}'" + nearest(str(name), there))
    return wanted


def label_of(facts: Mapping[str, Any], weights: str = "") -> str:
    """Name of a trace's tuning, or of the trace where it was not tuned; masks that were drawn, not recorded, show."""
    tuning = str(facts.get("tuning", {}).get("name", ""))
    name = str(facts["name"]) if tuning in UNTUNED else tuning
    if facts.get("synthetic"):
        name += " (synthetic)"
    return f"{name} (synthetic weights)" if weights.startswith("random") else name


def trace_labels(traces: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> list[str]:
    """Label traces by what differs between them.

    Parameters
    ----------
    traces : sequence of mapping
        Facts of each: ``name``, ``hash``, ``path``, ``model``, ``data``, ``tuning``; those it lacks are left out.
    names : sequence of str, optional
        What to call each where the others differ; `label_of` by default.

    Returns
    -------
    list of str
        Equal for equal traces alone: where names are equal, the model, the data, the trace's name, its folder or its
        hash follow in brackets, as many as are needed.
    """
    names = [label_of(facts) for facts in traces] if names is None else names
    return tell_apart(names, _identities(traces))


def labels_of_traces(traces: Sequence[Trace]) -> list[str]:
    """Label loaded traces for a figure; see `trace_labels`."""
    return trace_labels([trace_facts(trace) for trace in traces])


def labels_of_archs(archs: Sequence[Arch]) -> list[str]:
    """Label archs by name; those of one name by the fields that differ, or by hash."""
    return _arch_labels([arch.name for arch in archs], [arch_facts(arch) for arch in archs])


def trace_facts(trace: Trace) -> Json:
    """What a result keeps of a trace: name, place, hash, real tokens, and all that was recorded with it."""
    # the folders nearest to it tell traces of one name apart; more would carry a user's folders into shared results
    path = str(getattr(trace, "path", "")).rpartition("@")[2]  # a training step lies nowhere
    place = "/".join(PurePosixPath(path).parts[-PATH_PARTS:])
    return {"name": trace.name, "path": place, "hash": trace.hash, "tokens": trace.n_tokens, **trace.attrs}


def tell_apart(
    names: Sequence[str], facts: Sequence[Sequence[str]], notes: Sequence[Sequence[str]] | None = None
) -> list[str]:
    """Add to equal names, in brackets, the first of their facts that differ; equal facts keep equal names.

    Parameters
    ----------
    names : sequence of str
        What each is called.
    facts : sequence of sequence of str
        What tells each from the others, the best first; an empty text says nothing.
    notes : sequence of sequence of str, optional
        What each says in any case.
    """
    said = [list(one) for one in notes] if notes is not None else [[] for _ in names]
    for place in range(max(map(len, facts), default=0)):
        alike: dict[tuple[str, ...], list[int]] = {}
        for index, name in enumerate(names):
            alike.setdefault((name, *said[index]), []).append(index)
        for members in alike.values():
            if len({facts[index][place] for index in members}) > 1:
                for index in members:
                    said[index] += [facts[index][place]] if facts[index][place] else []
    return [f"{name} ({', '.join(notes)})" if notes else name for name, notes in zip(names, said, strict=True)]


def run_labels(names: pd.DataFrame, runs: Mapping[str, Any]) -> pd.DataFrame:
    """Label every run, so that no two runs have the same arch and tuning, or the same arch and trace.

    Parameters
    ----------
    names : DataFrame
        By run: trace, tuning and arch as the result's rows name them.
    runs : mapping
        ``Result.meta["runs"]``.

    Returns
    -------
    DataFrame
        By run: trace, tuning, arch. A name stays as it is where it tells; else what differs follows in brackets: the
        energy table, weights, launch and ops wherever they differ within the result, then the model, the data, the
        name, folder or hash of the trace; for archs the fields.
    """
    metas = [runs.get(run, {}) for run in names.index]
    traces = [meta.get("trace", {}) for meta in metas]
    notes = _settings(metas)
    identities = _identities(traces)
    archs = _arch_labels(list(names["arch"]), [meta.get("arch", {}) for meta in metas])
    labels = {"arch": archs}
    for column in ("tuning", "trace"):
        # several archs share a workload, whose label is found once
        keys = list(zip(names[column], map(tuple, notes), identities, strict=True))
        each = dict.fromkeys(keys, "")
        listed = tell_apart([key[0] for key in each], [key[2] for key in each], [key[1] for key in each])
        each = dict(zip(each, listed, strict=True))
        labels[column] = _once([each[key] for key in keys], archs, list(names.index), metas)
    return pd.DataFrame({name: labels[name] for name in NAMES}, index=names.index)


def _once(labels: list[str], archs: list[str], runs: list[str], metas: list[Json]) -> list[str]:
    """Add the version of the models or the run's key where two runs still have one label on one arch."""
    alike: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(zip(archs, labels, strict=True)):
        alike.setdefault(key, []).append(index)
    apart = list(labels)
    for members in alike.values():
        if len(members) > 1:
            kernels = [str(metas[index].get("kernels", ""))[:HASH_DIGITS] for index in members]
            facts = [(f"models {own}", f"run {runs[index]}") for own, index in zip(kernels, members, strict=True)]
            for index, label in zip(members, tell_apart([labels[index] for index in members], facts), strict=True):
                apart[index] = label
    return apart


def _settings(metas: Sequence[Json]) -> list[list[str]]:
    """What differs in how the runs of one result were made, said of each run."""
    tables = [meta.get("table", {}) for meta in metas]
    hashes = [[str(one.get("hash", ""))[:HASH_DIGITS]] for one in tables]
    kept = [
        tell_apart([str(one.get("name", "")) for one in tables], hashes),
        [f"weights {meta.get('weights', 'recorded')}" for meta in metas],
        [_launch(meta) for meta in metas],
        ["all ops" if meta.get("ops") is None else "ops " + ", ".join(meta["ops"]) for meta in metas],
    ]
    differing = [column for column in kept if len(set(column)) > 1]
    return (
        [[text for text in row if text] for row in zip(*differing, strict=True)] if differing else [[] for _ in metas]
    )


def _launch(meta: Json) -> str:
    batch, tokens = meta.get("batch"), meta.get("speculative")
    text = "recorded batches" if batch is None else f"batch {batch}"
    return text if tokens is None else f"{text}, {tokens} tokens a sequence"


def _identities(traces: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    folders = _folders([str(facts.get("path", "")) for facts in traces])
    return [
        (
            _name(facts.get("model")),
            _name(facts.get("data")),
            str(facts.get("name", "")),
            folder,
            f"trace {str(facts.get('hash', ''))[:HASH_DIGITS]}",
        )
        for facts, folder in zip(traces, folders, strict=True)
    ]


def _name(value: Any) -> str:
    return str((value.get("name") if isinstance(value, Mapping) else value) or "")


def _folders(paths: Sequence[str]) -> list[str]:
    """Folders of files, without what all of them have in common."""
    parts = [PurePosixPath(path).parent.parts for path in paths]
    first = min(map(len, parts), default=0)
    common = next((at for at in range(first) if len({one[at] for one in parts}) > 1), first)
    return ["/".join(one[common:]) for one in parts]


def _arch_labels(names: list[str], archs: list[Json]) -> list[str]:
    """Label archs of one name that are not the same by the fields that differ."""
    held: dict[tuple[str, str], Json] = {}
    for name, one in zip(names, archs, strict=True):
        held.setdefault((name, str(one.get("hash", ""))), one)
    by_name: dict[str, list[tuple[str, str]]] = {}
    for key in held:
        by_name.setdefault(key[0], []).append(key)
    labels: dict[tuple[str, str], str] = {}
    for name, keys in by_name.items():
        notes = [""] if len(keys) == 1 else _differing([held[key] for key in keys])
        for key, note in zip(keys, notes, strict=True):
            labels[key] = f"{name} ({note or key[1][:HASH_DIGITS]})" if len(keys) > 1 else name
    return [labels[name, str(one.get("hash", ""))] for name, one in zip(names, archs, strict=True)]


def _differing(archs: list[Json]) -> list[str]:
    """Say the fields in which archs differ, where they are known and few."""
    if not all("base" in one for one in archs):
        return [""] * len(archs)
    from hwmodels.arch import diff

    first, *others = [arch_of({"arch": one}) for one in archs]
    found = [diff(first, one) for one in others]
    of_first = {field: values[0] for one in found for field, values in one.items()}
    rows = [of_first, *(of_first | {field: values[1] for field, values in one.items()} for one in found)]
    texts = [", ".join(_setting(field, row[field]) for field in sorted(of_first)) for row in rows]
    told = 0 < len(of_first) <= MOST_FIELDS and len(set(texts)) == len(texts)
    return texts if told else [""] * len(archs)


def _setting(field: str, value: Any) -> str:
    from hwmodels.arch import with_unit

    name = field.removeprefix("params.")
    return f"{name}={with_unit(name, value)}"


def measured(runs: Mapping[str, Any]) -> pd.DataFrame:
    """Numbers that were measured of each run's tuning, by run: accuracy, its standard error, tuning time ..."""
    found = {}
    for run, meta in runs.items():
        values = meta.get("trace", {}).get("measurements", {})
        found[run] = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return pd.DataFrame.from_dict(found, orient="index")


def arch_facts(arch: Arch, base: Arch | None = None) -> Json:
    """What a result keeps of an arch: its name, hash, kernel and source, and all its fields.

    Parameters
    ----------
    arch : Arch
        What was replayed on.
    base : Arch, optional
        The arch that it is a variant of; found by name where it ships. Runs of one sweep share their base in storage,
        and each keeps the fields that differ.
    """
    import hwmodels

    if base is None and arch.variant_of and arch.variant_of in hwmodels.list_archs():
        base = hwmodels.load_arch(arch.variant_of)
    whole = _fields(base or arch)
    changes = list(_changes(whole, arch.model_dump(mode="json"))) if base is not None else []
    facts = {"name": arch.name, "hash": arch.hash, "kernel": arch.kernel, "source": arch.source}
    return {**facts, "base": whole, "changes": changes}


def arch_of(meta: Mapping[str, Any]) -> Arch:
    """Rebuild the arch of a run from what the result keeps of it.

    A result of an earlier version keeps the name alone, which is enough for an arch that ships and has not changed.

    Raises
    ------
    InputError
        If the result does not hold the arch, or this version cannot read it.
    """
    from pydantic import ValidationError

    import hwmodels

    kept = meta["arch"]
    name, key = str(kept["name"]), str(kept["hash"])
    if key in _ARCHS and _ARCHS[key].name == name:
        return _ARCHS[key]
    if "base" in kept:
        fields = copy.deepcopy(kept["base"])
        for path, value in kept["changes"]:
            fields = _put(fields, path, value)
        try:
            found = hwmodels.Arch.model_validate(fields)
        except ValidationError as error:
            reason = str(error.errors()[0]["msg"])
            raise InputError(f"arch '{name}' of this result is not readable here ({reason}); replay again") from None
    elif name in hwmodels.list_archs():
        found = hwmodels.load_arch(name)
        if found.hash != key:
            raise InputError(f"arch '{name}' has changed since this run; replay again, or give the one it used")
    else:
        raise InputError(
            f"this result does not hold the arch '{name}': an earlier version wrote it; replay again, or give the arch"
        )
    if len(_ARCHS) >= _KEPT:
        _ARCHS.clear()
    return _ARCHS.setdefault(key, found)


# reading an arch takes milliseconds, and a report asks for each one many times
_ARCHS: dict[str, Arch] = {}
_BASES: dict[str, Json] = {}
_KEPT = 256


def _fields(arch: Arch) -> Json:
    """All fields of an arch; one object for each arch, so that storage writes it once."""
    if len(_BASES) >= _KEPT:
        _BASES.clear()
    return _BASES.setdefault(arch.hash, arch.model_dump(mode="json"))


def _changes(base: Any, other: Any, path: tuple[str, ...] = ()) -> Iterator[list[Any]]:
    """Yield [path, value] of every field in which two trees differ."""
    if isinstance(base, dict) and isinstance(other, dict) and base.keys() == other.keys():
        for key in base:
            yield from _changes(base[key], other[key], (*path, key))
    # 1 and 1.0 are equal, but not in a content hash
    elif repr(base) != repr(other):
        yield [list(path), other]


def _put(tree: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree
