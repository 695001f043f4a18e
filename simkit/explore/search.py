"""``simkit search``: the Pareto front of a design space, by Optuna.

The space is that of a sweep (traces x archs x fields x tables), so every trial is a point of the same grid, with the
same content key, kept in the same parts. Trials live in an RDB: a search that was stopped goes on, and any number of
processes, on any number of machines, may work on one study.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field, field_validator

from hwmodels.costs.families import has_structure
from hwmodels.errors import nearest
from traces.fetch import cache_folder

from ..engine.keys import kernel_sources
from ..errors import InputError, UnavailableError
from ..files import whole
from ..provenance import key_of
from ..results.columns import maximised, view
from .expression import Expression
from .grid import Group, Plan, Point, plain_value, plan_of
from .parts import Parts
from .spec import SweepSpec, as_spec
from .sweep import points, write_points
from .worker import Worker, job_of

Json = dict[str, Any]
SHORT = {"energy": "energy_per_token_pj", "area": "area_mm2", "latency": "latency_s", "power": "power_w"}
# a worker that says nothing for this long is dead, and its trial failed
HEARTBEAT_S, GRACE_S = 10, 60


class SearchSpec(SweepSpec):
    """A search: the space of a sweep, and what to look for in it.

    Parameters
    ----------
    objectives : list of str
        Figures to improve together: ``cycles``, ``energy``, ``area``, ``accuracy``, ``latency`` ...; accuracy and
        speed-up are maximised, all others minimised.
    limits : list of str
        Expressions over the figures that a design must keep, such as ``power_w <= "5 W"``.
    area : str, optional
        Expression over the fields for the area, mm2, where fields change kernel parameters: the area that an arch
        states is of its own parameters.
    trials : int
        How many finished trials to reach.
    sampler : {"tpe", "nsga2", "random"}
        How to choose the next trial.
    seed : int
        Of the sampler.
    """

    objectives: list[str] = Field(default=["cycles", "energy"], min_length=1, validate_default=True)
    limits: list[str] = []
    area: str | None = None
    trials: int = Field(default=100, ge=1)
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    seed: int = Field(default=0, ge=0, lt=2**32)

    @field_validator("objectives")
    @classmethod
    def _known(cls, given: list[str]) -> list[str]:
        names, known = [SHORT.get(name, name) for name in given], view("objective")
        for name in names:
            if name not in known:
                raise ValueError(f"unknown objective '{name}'" + nearest(name, {*known, *SHORT}))
        if len(set(names)) < len(names):
            raise ValueError("an objective is there twice")
        return names


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Parameters
    ----------
    table : DataFrame
        One row for each finished trial: its point, its figures, ``feasible`` and ``front``.
    objectives : list of str
        Columns that were improved.
    fields : list of str
        Columns that were varied.
    """

    table: pd.DataFrame
    objectives: list[str]
    fields: list[str]


class Space:
    """The points of a plan as parameters of a trial.

    A group of fields whose values rise becomes an integer, so that the sampler knows their order; others are
    categories. An arch's groups are parameters only of trials of that arch.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def point(self, trial: Any) -> Point:
        """Let a trial choose a point."""
        plan = self.plan
        trace = self._choose(trial, "trace", [trace.name for trace in plan.traces])
        arch = self._choose(trial, "arch", [one.arch.name for one in plan.variants])
        table = self._choose(trial, "table", [table.name for table in plan.tables])
        weights = self._choose(trial, "weights", list(plan.weights))
        variants = plan.variants[arch]
        fields = []
        for group in variants.groups:
            names = "+".join(dict.fromkeys(name for part in group for name, _ in part))
            place = self._place(trial, f"{variants.arch.name}: {names}", group, variants.plain)
            fields += list(group[place])
        return Point(trace, arch, tuple(fields), table, plan.weights[weights])

    def _choose(self, trial: Any, name: str, options: Sequence[str]) -> int:
        if len(options) == 1:
            return 0
        # names may repeat (two traces called t), places may not
        labels = [f"{place} {option}" for place, option in enumerate(options)]
        return labels.index(trial.suggest_categorical(name, labels))

    def _place(self, trial: Any, name: str, group: Group, plain: Mapping[tuple[str, Any], Any]) -> int:
        if len(group) == 1:
            return 0
        if len(group[0]) == 1:
            values = [plain[part[0]] for part in group]
            numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
            if numbers and values == sorted(values):
                return int(trial.suggest_int(name, 0, len(group) - 1))
        return self._choose(trial, name, [", ".join(f"{n}={v}" for n, v in part) for part in group])


class PointFailed(Exception):
    """A trial chose a point that cannot be replayed."""


class Objective:
    """Replays the point a trial chose, and says how good it is."""

    def __init__(self, spec: SearchSpec, plan: Plan, folder: Path, threads: int | None):
        self.spec, self.plan, self.space = spec, plan, Space(plan)
        self.parts = Parts(folder / "parts")
        self.worker = Worker(job_of(plan, self.parts.folder), plan, threads)
        self.limits = [Expression(text) for text in spec.limits]
        self.area = Expression(spec.area) if spec.area else None
        self._check()

    def _check(self) -> None:
        """Refuse what could not be judged, before anything is replayed."""
        for limit in self.limits:
            limit.require(view("objective"))
        judged = {*self.spec.objectives, *(name for limit in self.limits for name in limit.names)}
        for variants in self.plan.variants:
            arch = variants.arch
            if self.area:
                self.area.require(arch.settable())
            elif "area_mm2" not in judged or (has_structure(arch) and arch.costs != "stated"):
                continue
            elif arch.area is None:
                raise InputError(f"arch '{arch.name}' states no area; give the spec an 'area' expression, in mm2")
            elif varied := [name for name, _ in variants.plain if name in arch.params]:
                raise InputError(
                    f"arch '{arch.name}' states the area of its own parameters, and the spec varies '{varied[0]}'; "
                    f"say how it grows, e.g. area: {arch.area.value:g} * {varied[0]} / {arch.param(varied[0])}"
                )
        if "accuracy" in judged:
            for trace in self.plan.traces:
                if "accuracy" not in trace.attrs.get("measurements", {}):
                    raise InputError(f"trace '{trace.name}' has no measured accuracy; record it from a tuning")

    def __call__(self, trial: Any) -> list[float]:
        """Return the objectives; a point that cannot be replayed fails the trial with its reason."""
        point = self.space.point(trial)
        run = self.plan.run(point)
        if run not in self.parts.runs:
            self.parts.refresh()
        if run not in self.parts.runs:
            reason = self.worker.run([point])[0]["reason"]
            self.parts.refresh()
            if reason:
                trial.set_user_attr("reason", reason)
                raise PointFailed(reason)
        figures = self._figures(run, point)
        trial.set_user_attr("run", run)
        trial.set_user_attr("area_mm2", figures["area_mm2"])
        for rule in self.plan.constraints:
            trial.set_constraint(rule.text, 0.0 if self.plan.fulfils(point, rule) else 1.0)
        for limit in self.limits:
            trial.set_constraint(limit.text, 0.0 if limit.value(figures.__getitem__) else 1.0)
        values = {name: float(figures[name]) for name in self.spec.objectives}
        if missing := [name for name, value in values.items() if value != value]:
            reason = f"arch '{figures['arch']}' gives no {missing[0]}: it estimates energy alone"
            trial.set_user_attr("reason", reason)
            raise PointFailed(reason)
        return list(values.values())

    def _figures(self, run: str, point: Point) -> Json:
        row: Json = points({"runs": {run: self.parts.runs[run]}}).iloc[0].to_dict()
        if self.area:
            arch = self.plan.arch(point)
            row["area_mm2"] = float(self.area.value(lambda name: plain_value(arch, name)))
        return row


def search(
    spec: SearchSpec | Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    progress: bool = True,
) -> Found:
    """Search a design space for its Pareto front with Optuna; called again, it goes on.

    Parameters
    ----------
    spec : path, mapping or SearchSpec
        Space and objectives: a YAML file, or what one holds.
    out : path, optional
        Folder for the study and its points; one in the user's cache by default, the same for the same spec.
    trials : int, optional
        Finished trials to reach, those of earlier calls among them; the spec's by default.
    workers : int
        Processes on this machine.
    storage : str, optional
        Database URL, which other machines may share; sqlite in the folder by default.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Found
        ``table`` has one row for each finished trial, with the swept fields, the figures, and ``front``: whether no
        other trial beats it.

    Raises
    ------
    InputError
        If the spec is wrong, the study in the database is of another spec, or an objective cannot be judged.
    UnavailableError
        If Optuna is not installed, or the database cannot be opened.

    Examples
    --------
    >>> spec = {"traces": "minilm_relu_small.zarr", "archs": "cnvlutin", "ops": ["down"],
    ...         "fields": {"lanes": [8, 16]}, "objectives": ["cycles", "energy"]}
    >>> found = sk.search(spec, "search", trials=3, progress=False)
    >>> bool(found.table["front"].any())
    True
    """
    loaded = as_spec(spec, SearchSpec)
    folder = Path(out) if out is not None else cache_folder() / "searches" / key_of(loaded.model_dump())
    path = Path(spec) if isinstance(spec, (str, os.PathLike)) else None
    if workers > 1 and path is None:
        # other processes read the spec from a file; JSON is YAML
        path = folder / "spec.yaml"
        with whole(path) as partial:
            partial.write_text(loaded.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return run_search(
        loaded, folder, trials=trials, workers=workers, storage=storage, progress=progress, spec_path=path
    )


def run_search(
    spec: SearchSpec,
    folder: Path,
    *,
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    progress: bool = False,
    spec_path: Path | None = None,
    helper: int = 0,
) -> Found:
    """Search until so many trials are finished.

    Parameters
    ----------
    spec : SearchSpec
        Space and objectives.
    folder : Path
        For the study, the parts and the front.
    trials : int, optional
        Finished trials to reach, those of earlier calls among them; the spec's by default.
    workers : int
        Processes on this machine; more than one needs `spec_path`. Each ends the trial it is at, so a few more
        trials than asked for may come.
    storage : str, optional
        Database URL; ``study.db`` (sqlite) in the folder by default.
    progress : bool
        Show a bar on stderr.
    spec_path : Path, optional
        Where the spec is, for the other processes.
    helper : int
        Which of the other processes this is; each samples with a seed of its own.

    Raises
    ------
    InputError
        If the study in the database is of another spec, or an objective cannot be judged.
    UnavailableError
        If Optuna is not installed, or the database cannot be opened.
    """
    optuna = _optuna()
    plan = plan_of(spec)
    folder.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{(folder / 'study.db').resolve()}"
    goal = trials or spec.trials
    objective = Objective(spec, plan, folder, threads=None if workers == 1 and not helper else 1)
    study = _study(optuna, spec, plan, url, helper)
    helpers = [_start(spec_path, folder, goal, url, i) for i in range(1, workers)] if spec_path else []
    try:
        _optimize(optuna, study, objective, goal, progress)
        for other in helpers:
            other.wait()
    finally:
        for other in helpers:
            other.terminate()
            other.wait()
    return _found(study, objective)


def _optimize(optuna: Any, study: Any, objective: Objective, goal: int, progress: bool) -> None:
    from tqdm.auto import tqdm

    complete = optuna.trial.TrialState.COMPLETE

    def finished() -> int:
        return len(study.get_trials(deepcopy=False, states=(complete,)))

    with tqdm(total=goal, initial=min(goal, finished()), desc="search", unit="trial", disable=not progress) as bar:
        # a space of failing points must not be searched for ever
        for _ in range(10 * goal):
            done = finished()
            bar.update(min(goal, done) - bar.n)
            if done >= goal:
                return
            study.optimize(objective, n_trials=1, catch=(PointFailed,))
    raise InputError(
        f"{10 * goal} trials brought {finished()} points that can be replayed; see the failed ones' reasons"
    )


def _study(optuna: Any, spec: SearchSpec, plan: Plan, url: str, helper: int) -> Any:
    """Open the study, or make it; refuse one of another space."""
    from sqlalchemy.exc import SQLAlchemyError

    identity = key_of(
        [trace.hash for trace in plan.traces],
        [[variants.arch.hash, variants.groups] for variants in plan.variants],
        [table.hash for table in plan.tables],
        spec.model_dump(include={"ops", "weights", "constraints", "objectives", "limits", "area"}),
        [kernel_sources(variants.arch) for variants in plan.variants],
    )
    try:
        storage = optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
        study = optuna.create_study(
            study_name="search",
            storage=storage,
            directions=["maximize" if name in maximised() else "minimize" for name in spec.objectives],
            load_if_exists=True,
        )
    except ImportError as error:
        raise UnavailableError(f"the database {url} needs a driver: {error}") from None
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise UnavailableError(f"cannot open the database {url}: {str(error).splitlines()[0]}") from None
    there = study.user_attrs.get("identity", identity)
    if there != identity or len(study.directions) != len(spec.objectives):
        raise InputError(
            f"{url} holds a search of another spec, trace or version of the models; search into another --out, or "
            "delete it"
        )
    study.set_user_attr("identity", identity)
    # a search that goes on must not repeat the trials it began with
    seed = (spec.seed + len(study.get_trials(deepcopy=False)) + 10_007 * helper) % 2**32
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    study.sampler = samplers[spec.sampler]()
    return study


def _start(spec: Path, folder: Path, goal: int, url: str, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "simkit", "search", str(spec), "--out", str(folder), "--trials", str(goal)]
    return subprocess.Popen([*command, "--storage", url, "--quiet", "--helper", str(number)], start_new_session=True)


def _found(study: Any, objective: Objective) -> Found:
    """Lay the finished trials out as a table."""
    import optuna

    objective.parts.refresh()
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    best = {trial.number for trial in study.best_trials}
    known = {run: objective.parts.runs[run] for run in (trial.user_attrs["run"] for trial in trials)}
    found = {str(row["run"]): row for row in points({"runs": known}).to_dict("records")}
    rows = []
    for trial in trials:
        row = {str(name): value for name, value in found[trial.user_attrs["run"]].items()}
        row |= dict(zip(objective.spec.objectives, trial.values, strict=True))
        feasible = all(value <= 0 for value in trial.constraints.values())
        area = trial.user_attrs["area_mm2"]
        rows.append(
            {"number": trial.number, **row, "area_mm2": area, "feasible": feasible, "front": trial.number in best}
        )
    names = dict.fromkeys(name for one in objective.plan.variants for name, _ in one.plain)
    return Found(pd.DataFrame(rows), list(objective.spec.objectives), list(names))


def write_front(found: Found, folder: Path) -> list[Path]:
    """Write ``trials.parquet``, and ``front.png`` and ``front.pdf`` over the first two objectives."""
    files = [write_points(found.table, folder / "trials.parquet")]
    if len(found.objectives) < 2:
        return files
    from .. import plots
    from ..plots.catalogue import save

    x, y = found.objectives[:2]
    for ending in ("png", "pdf"):
        ax = plots.pareto(found.table[found.table["feasible"]], x=x, y=y)
        files.append(save(ax, folder / f"front.{ending}", keywords=sorted(set(found.table["run"]))))
    return files


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UnavailableError("the search needs Optuna: pip install 'zeroskip[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # heartbeats have been marked experimental for years; without them a killed worker's trial runs for ever
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
