"""Tune a model on a data set, or return what an earlier call finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.load import load_data
from ..errors import InputError
from ..models.load import default_task
from .registry import load_tuning
from .result import MEASUREMENTS, TuneResult, open_result
from .spec import Tuning
from .trainer import Run, Trainer


def tune(
    model: str = "minilm-l6",
    data: str = "vader-movie",
    tuning: str | Path | Tuning = "lora",
    out: str | Path = "tuned",
    seed: int | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    init: str | Path | None = None,
    teacher: str | Path | None = None,
    sites: str | Sequence[str] | None = None,
    text: str | None = None,
    label: str | None = None,
    task: str | None = None,
    progress: bool = True,
) -> TuneResult:
    """Tune a model on a data set and measure it on the held-out split.

    A killed run goes on from its last checkpoint and, on the CPU with the same number of threads, ends with the same
    weights. A finished one is returned as it is.

    Parameters
    ----------
    model, data : str
        Packaged, hub or local names.
    tuning : str, Path or Tuning
        A ready-made tuning's name, a YAML file, or the object.
    out : str or Path
        The result's folder.
    seed : int, optional
        Overrides the tuning's seed.
    limit, test_limit : int, optional
        Rows used of the training and of the held-out split.
    init, teacher : str or Path, optional
        Finished tunings to start from, and to learn from. Where the tuning has ``init_from`` or ``distil`` and this is
        not given, the folder of that name beside `out` is used, and made first if it is not there.
    sites : str or sequence of str, optional
        Patterns of the down-projections' modules, for a model whose family is not in the table. Without them such a
        model is tuned where the tuning does not ask for its MLP blocks, and its density is not measured.
    text, label : str, optional
        Column names of a file or hub data set: ``text`` and ``label`` by default.
    task : str, optional
        One of `traces.models.load.TASKS`; what the model is for by default. A classification numbers the classes of the
        data in sorted order and trains the head with them: a stored head with another number of classes is replaced
        by a new one, with a warning.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    TuneResult
        Its folder, the tuning, and what was measured of it.

    Raises
    ------
    InputError
        If a name is not known, the data have one class alone, the tunings to start from or to learn from are for
        another model or task, or `out` holds another run.
    NumericError
        If the loss is not finite.

    Examples
    --------
    >>> result = sk.tune("minilm-l6", data="vader-movie", tuning="lora", out="lora")  # doctest: +SKIP
    >>> result.measurements["accuracy"]  # doctest: +SKIP
    """
    plan = load_tuning(tuning)
    if seed is not None:
        plan = plan.model_copy(update={"seed": seed})
    folder = Path(out)
    wanted = task or default_task(model)
    content = load_data(
        data, text=text or "text", label=label or (None if wanted == "causal-lm" else "label"), task=wanted
    )
    if wanted == "features":
        raise InputError(f"model '{model}' has no head to tune; name a task, such as classification")
    if wanted != "causal-lm" and content.train.labels is None:
        raise InputError(f"data set '{data}' has no labels; name their column with label=...")
    if wanted.endswith("classification") and not content.classes:
        raise InputError(f"data set '{data}' has no classes for {wanted}; name the column of their labels, or a task")
    if wanted.endswith("classification") and len(content.classes) < 2:
        raise InputError(f"data set '{data}' has one class ('{content.classes[0]}') alone; there is nothing to learn")
    patterns = (sites,) if isinstance(sites, str) else tuple(sites or ()) or None
    run = Run(model, data, wanted, len(content.classes), plan, limit, test_limit, patterns)
    run = replace(run, before=_given(run, init, teacher))
    if (folder / MEASUREMENTS).is_file():
        done = open_result(folder)
        if not _same(done, run, init):
            raise InputError(f"'{folder}' holds another tuning ('{done.tuning.name}'); choose another folder")
        return done
    options = {"sites": patterns, "text": text, "label": label, "task": task, "progress": progress}
    start = _before(run, folder, run.tuning.init_from, options) if init is None else open_result(init).path
    distil = run.tuning.distil
    taught: Path | None = None
    if distil is not None:
        taught = _before(run, folder, distil.teacher, options) if teacher is None else open_result(teacher).path
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(run, content, folder, start, taught, progress).finish()


def _given(run: Run, init: str | Path | None, teacher: str | Path | None) -> tuple[str | None, str | None]:
    """Return the keys of the tunings that were given by their folders, after a check that they fit this run."""
    keys: list[str | None] = [None, None]
    if teacher is not None and run.tuning.distil is None:
        raise InputError(
            f"tuning '{run.tuning.name}' does not distil; leave the teacher out, or set its field 'distil'"
        )
    for place, (folder, fields) in enumerate(((init, ("model", "task", "labels")), (teacher, ("task", "labels")))):
        if folder is None:
            continue
        facts = open_result(folder).measurements
        for name in fields:
            if facts[name] != getattr(run, name):
                raise InputError(
                    f"tuning in '{folder}' has {name} '{facts[name]}', this one '{getattr(run, name)}'; give one that "
                    f"has the same"
                )
        keys[place] = str(facts["key"])
    return keys[0], keys[1]


def _same(done: TuneResult, run: Run, init: str | Path | None) -> bool:
    """Whether a finished tuning is this run's; an older one names what it started from by its folder alone."""
    if done.measurements["key"] == run.key:
        return True
    unnamed = replace(run, before=(None, None)).key
    started = None if init is None else Path(init).name
    return (
        done.measurements["key"] == unnamed
        and "before" not in done.measurements
        and (started is None or done.measurements.get("init") == started)
    )


def _before(run: Run, folder: Path, name: str | None, options: dict[str, Any]) -> Path | None:
    """Return the folder of a tuning that this one needs, beside its own; tuned first where need be."""
    if name is None:
        return None
    before = load_tuning(name).model_copy(update={"seed": run.tuning.seed})
    beside = folder.resolve().parent / before.name
    return tune(run.model, run.data, before, beside, limit=run.limit, test_limit=run.test_limit, **options).path
