"""Models by name: packaged ones with real weights, any other through transformers.

Remote code is never run, and weights are read from safetensors or with ``weights_only=True``, which is how transformers
reads PyTorch files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FetchError, InputError, TraceError, did_you_mean
from ..fetch import settle_hub_access, unpacked
from .loaders.packaged import MODELS, ModelEntry
from .quiet import quiet_transformers

TASKS = ("classification", "regression", "causal-lm", "seq2seq", "image-classification", "features")


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


def load_feature_extractor(name: str) -> Any:
    """Load what turns sound into a speech model's features."""
    from transformers import AutoFeatureExtractor

    return _guarded(name, lambda: AutoFeatureExtractor.from_pretrained(model_folder(name), trust_remote_code=False))


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
    facts = load_config(name)
    if modality(facts) == "audio" and task == "seq2seq":
        classes[task] = transformers.AutoModelForSpeechSeq2Seq
    if task.endswith("classification"):
        config["num_labels"] = labels
    elif task == "regression":
        config |= {"num_labels": 1, "problem_type": "regression"}
    if task in ("classification", "regression") and getattr(facts, "pad_token_id", None) is None:
        config["pad_token_id"] = padding_token(load_tokenizer(name))  # decoders look for the last token before it
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
    except TraceError:
        raise
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if name in MODELS:
            hint = f"could not load the packaged model '{name}' ({first})"
            raise FetchError(f"{hint}; delete {model_folder(name)} and try again") from error
        hint = f"could not load model '{name}'{did_you_mean(name, MODELS)} ({first})"
        raise InputError(f"{hint}; a hub name needs network access, a local one a folder with config.json") from error


def padding_token(tokenizer: Any) -> int:
    """Return the padding token's id; decoders often have none, and any id does under a mask."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)
