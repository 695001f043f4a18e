"""Comparison of tuning methods: accuracy, parameters, density, time and energy."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..engine.inputs import as_list
from ..errors import InputError, VersionError
from ..files import whole

if TYPE_CHECKING:
    from traces import Trace, TuneResult, Tuning

Json = dict[str, Any]
SCHEMA = "zeroskip.methods/1"
ARCHS = ("cnvlutin", "tensordash", "h100_sxm")
SEQUENCES = 64
# two-sided designs would gain from pruned weights; where a trace has recorded none, they are dense
WEIGHTS = "recorded"
PER_SEED = ("accuracy", "density", "trainable_parameters", "train_seconds", "perplexity")
PER_ARCH = ("speedup", "speedup_down", "energy_per_token_pj", "energy_ratio")


@dataclass(frozen=True)
class Comparison:
    """A named set: what is tuned on what.

    Parameters
    ----------
    model, data : str
        Packaged names.
    tunings : tuple of str
        Ready-made tunings, in the order of the table.
    samples, test_samples : int, optional
        Training rows for every tuning alike, in one epoch, and rows of the held-out split; all by default.
    train : mapping
        What of the training is the same for all tunings, such as its precision; see `traces.Training`.
    rates : mapping of str to float
        Learning rates that this model needs where a tuning's own is not for it.
    """

    model: str
    data: str
    tunings: tuple[str, ...]
    samples: int | None = None
    test_samples: int | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


def comparisons() -> dict[str, Comparison]:
    """Return the named sets by model, from ``simkit/stored/comparisons.yaml``."""
    from ruamel.yaml import YAML

    text = resources.files("simkit").joinpath("stored/comparisons.yaml").read_text(encoding="utf-8")
    data: Json = YAML(typ="safe", pure=True).load(text)
    return {
        name: Comparison(**entry | {"model": name, "tunings": tuple(entry["tunings"])}) for name, entry in data.items()
    }


def methods_folder(model: str, out: str | Path | None = None) -> Path:
    """Where a comparison's runs, table and figures are."""
    return Path("out/methods") / Path(model).name if out is None else Path(out)


def compare(
    model: str = "minilm-l6",
    data: str | None = None,
    tunings: str | Sequence[str] | None = None,
    *,
    seeds: int = 3,
    archs: str | Sequence[str] = ARCHS,
    samples: int | None = None,
    test_samples: int | None = None,
    sequences: int = SEQUENCES,
    out: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Compare tuning methods: tune, record and replay each over several seeds.

    Whatever is finished below `out` is taken from there, so a stopped comparison goes on. The seeds are the outer loop:
    stopped early, each method has been run as often as the others.

    Parameters
    ----------
    model : str
        Packaged, local or hub name.
    data : str, optional
        Data set; a named set's own by default.
    tunings : str or sequence of str, optional
        Ready-made tunings or YAML files; a named set's own by default.
    seeds : int
        Runs of each, seeded 0, 1, ...
    archs : str or sequence of str
        Archs to replay on.
    samples : int, optional
        Training rows for every tuning alike, in one epoch; by default the named set's own number, and without one each
        tuning's own training.
    test_samples : int, optional
        Rows of the held-out split that accuracy is measured on; the named set's own number by default, else all.
    sequences : int
        Held-out sequences that are recorded and replayed.
    out : path, optional
        Folder of everything; ``out/methods/<model>`` by default.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    DataFrame
        One row for each (tuning, seed, arch): accuracy, density, trainable_parameters, train_seconds; speedup and
        energy_ratio of the whole model against the untuned model, dense, on the same design and tokens; speedup_down of
        the down-projections against the same trace run dense; energy_per_token_pj, of the text's tokens, with its
        range; hashes.

    Raises
    ------
    InputError
        If the model has no named set and `data` or `tunings` is not given, or a number is not positive.

    Examples
    --------
    >>> frame = sk.compare("minilm-l6", tunings=["lora", "relu-lora"], seeds=1)  # doctest: +SKIP
    >>> frame.groupby("tuning")["accuracy"].mean()  # doctest: +SKIP
    """
    import traces

    known = comparisons()
    named = known.get(model)
    if named is None and (data is None or tunings is None):
        listed = ", ".join(known)
        raise InputError(f"there is no named set for '{model}' (there are: {listed}); give --data and --tuning")
    plan = named or Comparison(model, data or "", ())
    data, chosen = data or plan.data, as_list(tunings or plan.tunings)
    samples = plan.samples if samples is None else samples
    test_samples = plan.test_samples if test_samples is None else test_samples
    if min(seeds, sequences, *(n for n in (samples, test_samples) if n is not None)) < 1:
        raise InputError(
            f"seeds {seeds}, sequences {sequences}, samples {samples}, test_samples {test_samples}: must be positive"
        )
    recipes = {name: traces.load_tuning(name) for name in chosen}
    _check_names([recipe.name for recipe in recipes.values()])
    plan = replace(plan, data=data, samples=samples, test_samples=test_samples)
    bench = _Bench(plan, tuple(as_list(archs)), sequences, methods_folder(model, out), progress)
    base = bench.base()
    rows: list[Json] = []
    for seed in range(seeds):
        for name in chosen:
            if progress:
                sys.stderr.write(f"== {name}, seed {seed}\n")
            rows += bench.run(recipes[name], seed, base)
    return pd.DataFrame(rows)


# the name that notebooks of earlier versions use
compare_methods = compare


def _check_names(names: Sequence[str]) -> None:
    """Refuse tunings of one name: their seeds would be joined as those of one."""
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise InputError(f"two tunings are named '{twice[0]}', and their seeds would be joined; rename one")


@dataclass(frozen=True)
class _Bench:
    """What all runs of a comparison share."""

    plan: Comparison
    archs: tuple[str, ...]
    sequences: int
    out: Path
    progress: bool

    def base(self) -> dict[str, Json]:
        """Replay the untuned model: what every speed-up and energy is held against."""
        path = self.out / "traces" / f"base-{self.sequences}.zarr"
        return self._replay(self._record(path, None))

    def run(self, tuning: Tuning, seed: int, base: dict[str, Json]) -> list[Json]:
        """Return one row for each arch of one tuning with one seed."""
        done = self._tune(tuning, seed)
        trace = self._record(self.out / "traces" / f"{done.path.name}-{self.sequences}.zarr", done.path)
        measured = done.measurements
        shared: Json = {
            "tuning": tuning.name,
            "method": tuning.method,
            "seed": seed,
            "model": self.plan.model,
            "data": self.plan.data,
        }
        shared |= {name: measured.get(name, math.nan) for name in (*PER_SEED, "accuracy_se")}
        shared |= {"train_samples": measured["train_samples"], "test_samples": measured["test_samples"]}
        shared |= {"tuning_hash": done.tuning.model_copy(update={"seed": tuning.seed}).hash, "trace_hash": trace.hash}
        rows = []
        for arch, found in self._replay(trace).items():
            origin = base[arch]
            # virtual tokens of a prompt are work, but no text: all tunings are priced per token of the same text
            tokens = origin["energy_pj"] / origin["energy_per_token_pj"]
            rows.append(
                shared
                | {
                    "arch": arch,
                    "arch_hash": found["arch_hash"],
                    "speedup": origin["dense_latency_s"] / found["latency_s"],
                    "speedup_down": found["speedup_down"],
                    "energy_per_token_pj": found["energy_pj"] / tokens,
                    "energy_low_per_token_pj": found["energy_low_pj"] / tokens,
                    "energy_high_per_token_pj": found["energy_high_pj"] / tokens,
                    "energy_ratio": found["energy_pj"] / origin["energy_pj"],
                }
            )
        return rows

    def _tune(self, tuning: Tuning, seed: int) -> TuneResult:
        """Tune as all others are tuned, and so too what a tuning starts and learns from."""
        import traces

        plan = self.plan
        changes: Json = {} if plan.samples is None else {"epochs": 1.0, "max_samples": plan.samples}
        changes |= plan.train
        changes |= {"lr": plan.rates[tuning.name]} if tuning.name in plan.rates else {}
        if changes:
            tuning = tuning.model_copy(update={"train": tuning.train.model_copy(update=changes)})
        distil = tuning.distil
        start, teacher = (
            None if name is None else self._tune(traces.load_tuning(name), seed).path
            for name in (tuning.init_from, None if distil is None else distil.teacher)
        )
        return traces.tune(
            plan.model,
            plan.data,
            tuning,
            self.out / "tunings" / f"{tuning.name}-{plan.samples or 'own'}-s{seed}",
            seed=seed,
            test_limit=plan.test_samples,
            init=start,
            teacher=teacher,
            progress=self.progress,
        )

    def _record(self, path: Path, adapter: Path | None) -> Trace:
        import traces

        return traces.record(self.plan.model, adapter, self.plan.data, self.sequences, path, progress=self.progress)

    def _replay(self, trace: Trace) -> dict[str, Json]:
        from ..engine.inputs import arch as load_arch
        from .sweep import sweep

        result = sweep([trace], self.archs, weights=WEIGHTS, out=self.out / "runs", progress=False, processes=0)
        whole = result.summary().set_index("run")
        sparse = "down" in set(result.frame["op"])
        down = result.summary("down").set_index("run")["speedup"] if sparse else pd.Series(dtype=float)
        runs = {meta["arch"]["hash"]: run for run, meta in result.meta["runs"].items()}
        found = {}
        for arch in self.archs:
            key = load_arch(arch).hash
            if key not in runs:
                reason = result.meta["failed"][0]["reason"] if result.meta.get("failed") else "it was not replayed"
                raise InputError(f"arch '{arch}' on trace '{trace.name}': {reason}")
            row = whole.loc[runs[key]]
            found[arch] = row.to_dict() | {"speedup_down": float(down.get(runs[key], math.nan)), "arch_hash": key}
        return found


def aggregate(rows: pd.DataFrame) -> list[Json]:
    """Join the seeds: one object for each tuning.

    Parameters
    ----------
    rows : DataFrame
        As `compare` returns it.

    Returns
    -------
    list of dict
        ``tuning``, ``method``, ``seeds``; the mean of each measurement; ``accuracy_se``, the standard error of the mean
        over seeds (of the binomial distribution where there is one seed); ``archs``: for each design the means of
        speedup, speedup_down, energy_per_token_pj and energy_ratio.
    """
    objects = []
    for tuning, group in rows.groupby("tuning", sort=False):
        single = group.drop_duplicates("seed")
        accuracy, n = single["accuracy"], len(single)
        error = accuracy.std(ddof=1) / math.sqrt(n) if n > 1 else float(single["accuracy_se"].iloc[0])
        row: Json = {
            "tuning": tuning,
            "method": single["method"].iloc[0],
            "model": single["model"].iloc[0],
            "data": single["data"].iloc[0],
            "seeds": n,
            "train_samples": int(single["train_samples"].iloc[0]),
            "accuracy": float(accuracy.mean()),
            "accuracy_se": float(error),
            "density": float(single["density"].mean()),
            "trainable_parameters": int(single["trainable_parameters"].mean()),
            "train_seconds": float(single["train_seconds"].mean()),
        }
        if single["perplexity"].notna().all():
            row["perplexity"] = float(single["perplexity"].mean())
        means = group.groupby("arch", sort=False)[list(PER_ARCH)].mean()
        row["archs"] = {str(arch): values.to_dict() for arch, values in means.iterrows()}
        objects.append(row)
    return objects


def flat(objects: Sequence[Json]) -> pd.DataFrame:
    """Return `aggregate`'s objects as a table, one row for each tuning and arch."""
    rows = []
    for item in objects:
        own = {key: value for key, value in item.items() if key != "archs"}
        rows += [own | {"arch": arch} | values for arch, values in item["archs"].items()]
    return pd.DataFrame(rows)


def save_methods(rows: pd.DataFrame, path: Path, settings: Json) -> Path:
    """Write a comparison as one Parquet file with its provenance, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..provenance import environment

    meta = {"schema": SCHEMA, "settings": settings, "environment": environment()}
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"zeroskip": json.dumps(meta).encode()})
    with whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return path


def stored_models() -> list[str]:
    """Return the models whose comparison comes with the package."""
    names = (f.name for f in resources.files("simkit").joinpath("stored").iterdir())
    return sorted(n.removeprefix("methods_").removesuffix(".parquet") for n in names if n.startswith("methods_"))


def stored_methods(model: str = "minilm-l6") -> pd.DataFrame:
    """Return the comparison that comes with the package; ``.attrs`` holds its settings and provenance.

    Raises
    ------
    InputError
        If none is stored for that model.
    """
    kept = stored_models()
    if model not in kept:
        raise InputError(f"no stored comparison for '{model}' (there are: {', '.join(kept) or 'none'})")
    with resources.as_file(resources.files("simkit").joinpath(f"stored/methods_{model}.parquet")) as path:
        return load_methods(path)


def load_methods(path: Path) -> pd.DataFrame:
    """Read a file of `save_methods`.

    Raises
    ------
    InputError
        If it is not such a file.
    VersionError
        If another version wrote it.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {})[b"zeroskip"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is no comparison of methods ({error}); make one with simkit compare methods"
        ) from error
    if meta.get("schema") != SCHEMA:
        raise VersionError(
            f"{path} was written by another version (schema {meta.get('schema')}, this one reads {SCHEMA}); "
            "make it anew with simkit compare methods"
        )
    frame: pd.DataFrame = table.to_pandas()
    frame.attrs = {"settings": meta["settings"], "environment": meta["environment"]}
    return frame


def on_front(table: pd.DataFrame, cost: str) -> np.ndarray[Any, Any]:
    """Return ``bool[rows]``: which tunings no other beats in accuracy and in `cost` at once."""
    from ..plots.tradeoff import front

    return front(table, cost, "accuracy", ("accuracy",))
