"""Tune a model on a data set, or return what an earlier call finished."""

from __future__ import annotations

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
    text, label : str, optional
        Column names of a file or hub data set: ``text`` and ``label`` by default.
    task : str, optional
        One of `traces.models.load.TASKS`; what the model is for by default.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    TuneResult

    Raises
    ------
    InputError
        If a name is not known, or `out` holds another run.
    NumericError
        If the loss is not finite.
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
    run = Run(model, data, wanted, len(content.classes), plan, limit, test_limit)
    if (folder / MEASUREMENTS).is_file():
        done = open_result(folder)
        if done.measurements["key"] != run.key:
            raise InputError(f"'{folder}' holds another tuning ('{done.tuning.name}'); choose another folder")
        return done
    options = {"text": text, "label": label, "task": task, "progress": progress}
    start = _before(run, folder, run.tuning.init_from, options) if init is None else open_result(init).path
    distil = run.tuning.distil
    taught: Path | None = None
    if distil is not None:
        taught = _before(run, folder, distil.teacher, options) if teacher is None else open_result(teacher).path
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(run, content, folder, start, taught, progress).finish()


def _before(run: Run, folder: Path, name: str | None, options: dict[str, Any]) -> Path | None:
    """Return the folder of a tuning that this one needs, beside its own; tuned first where need be."""
    if name is None:
        return None
    before = load_tuning(name).model_copy(update={"seed": run.tuning.seed})
    beside = folder.resolve().parent / before.name
    return tune(run.model, run.data, before, beside, limit=run.limit, test_limit=run.test_limit, **options).path
