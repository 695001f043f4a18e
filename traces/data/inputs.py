"""Items of a data set as a model takes them: tokens, pairs of token rows, or pixels, batch by batch.

Training and recording share this: whatever the task, they see lengths to sort by and padded batches.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError, library_errors
from ..models.limits import check_positions, check_tokens
from ..models.load import image_statistics, load_config, load_feature_extractor, load_tokenizer, modality, padding_token
from ..models.patches import PatchGrid
from .batches import Batch, collate, encode
from .items import IGNORED, Inputs, shift_right
from .splits import Split


class TextInputs(Inputs):
    """Tokenized texts with a number each, none, or themselves (shifted by the model) to predict."""

    def __init__(self, tokens: list[list[int]], pad: int, labels: Any = None, predict_next: bool = False) -> None:
        self.tokens, self.pad, self.labels, self.predict_next = tokens, pad, labels, predict_next
        self.lengths = [len(row) for row in tokens]

    def batch(self, rows: Sequence[int], side: str = "right") -> Batch:
        """Return ``input_ids`` and ``attention_mask``, int64[B, S]."""
        made = collate(self.tokens, rows, self.pad, side)
        if self.predict_next:
            return replace(made, labels=made.inputs["input_ids"].masked_fill(~made.real, IGNORED))
        return made if self.labels is None else replace(made, labels=self.labels[list(rows)])

    def fingerprint(self) -> bytes:
        """Return the token ids."""
        return json.dumps(self.tokens).encode()


class PairInputs(Inputs):
    """Texts with target texts, for an encoder and a decoder."""

    def __init__(self, tokens: list[list[int]], targets: list[list[int]], pad: int, start: int, labelled: bool) -> None:
        self.tokens, self.said, self.pad, self.start, self.labelled = tokens, targets, pad, start, labelled
        self.lengths = [len(row) for row in tokens]
        self.targets = [max(1, len(row)) for row in targets]

    def batch(self, rows: Sequence[int], side: str = "right") -> Batch:
        """Return ``input_ids``, ``attention_mask`` and the targets shifted right as ``decoder_input_ids``."""
        made = collate(self.tokens, rows, self.pad)
        shifted, labels, mask = shift_right([self.said[r] for r in rows], self.pad, self.start)
        stacks = {"encoder": made.real, "decoder": mask}
        inputs = made.inputs | {"decoder_input_ids": shifted}
        return replace(made, inputs=inputs, labels=labels if self.labelled else None, stacks=stacks)

    def fingerprint(self) -> bytes:
        """Return the token ids of both sides."""
        return json.dumps([self.tokens, self.said]).encode()


class ImageInputs(Inputs):
    """Images, resized to a grid of patches and normalised as the model was trained.

    Parameters
    ----------
    images : array or sequence
        uint8 (N, H, W) or (N, H, W, C); or paths of files, or their bytes.
    tokens : int
        Of each image in the model: patches and special tokens.
    size : int
        Side in pixels.
    mean, deviation : sequence of 3 floats
        Of the channels, on a scale of 0 to 1.
    labels : tensor, optional
        int64[N] classes or float32[N] numbers.
    extra : dict, optional
        Further arguments of the model's forward.
    """

    def __init__(
        self,
        images: Any,
        tokens: int,
        size: int,
        mean: Sequence[float],
        deviation: Sequence[float],
        labels: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.images, self.size, self.labels, self.extra = images, size, labels, extra or {}
        self.mean, self.deviation = list(mean), list(deviation)
        self.lengths = [tokens] * len(images)

    def batch(self, rows: Sequence[int], side: str = "right") -> Batch:
        """Return ``pixel_values``, float32[B, 3, size, size]; every token is real."""
        import torch

        if isinstance(self.images, np.ndarray):  # all of one size: resized together
            pixels = self._pixels(self.images[list(rows)])
        else:
            pixels = torch.cat([self._pixels(_read_image(self.images[row])[None]) for row in rows])
        mask = torch.ones((len(rows), self.lengths[0]), dtype=torch.bool)
        labels = None if self.labels is None else self.labels[list(rows)]
        return Batch(np.asarray(rows, dtype=np.int64), {"pixel_values": pixels} | self.extra, mask, labels)

    def _pixels(self, images: Any) -> Any:
        """Resize uint8 images (B, H, W) or (B, H, W, C) and normalise their channels; grey ones become three."""
        import torch

        array = images[..., None] if images.ndim == 3 else images[..., :3]
        values = torch.from_numpy(np.array(array)).permute(0, 3, 1, 2).float() / 255
        sized = torch.nn.functional.interpolate(
            values, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 1)
        mean, deviation = (torch.tensor(facts)[:, None, None] for facts in (self.mean, self.deviation))
        return (sized - mean) / deviation

    def fingerprint(self) -> bytes:
        """Return a digest of the images' bytes and of how they are prepared."""
        digest = hashlib.sha256(json.dumps([self.size, self.mean, self.deviation, len(self)]).encode())
        for image in self.images:
            digest.update(image.encode() if isinstance(image, str) else bytes(image))
        return digest.digest()


def _read_image(source: str | bytes) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        name = f"'{source}'" if isinstance(source, str) else "inside the data set"
        raise InputError(f"image {name} cannot be read ({error}); give a PNG, JPEG or other image file") from error


def prepare(model: str, task: str, split: Split, max_length: int = 64, decoded: int = 0, front: int = 0) -> Inputs:
    """Tokenize texts, resize images or read speech for a model.

    Parameters
    ----------
    model : str
        Packaged, local or hub name.
    task : str
        One of `traces.models.load.TASKS`: decides what the labels are.
    split : Split
        Items of one kind.
    max_length : int
        Tokens kept of each text. An image becomes the largest square grid of patches that, with the model's special
        tokens, has no more of them, and is no larger than the model's own.
    decoded, front : int
        Tokens that will be decoded after each text, and virtual ones put in front of it: they need positions too.

    Returns
    -------
    Inputs

    Raises
    ------
    InputError
        If the model takes another kind of item, or the task another kind of label, than the split has; if a text is
        longer than the model has positions for, or has a token that it has no embedding for.
    """
    config = load_config(model)
    wanted = modality(config)
    if split.kind != wanted:
        raise InputError(
            f"model '{model}' takes {wanted} and this data set holds {split.kind}; choose another data set or model "
            "('simkit ls datasets', 'simkit ls models')"
        )
    if wanted == "images":
        return _images(model, config, task, split, max_length)
    made = _texts(model, config, task, split, max_length)
    check_positions(model, config, made.lengths, made.targets, decoded, front)
    return made


def _texts(model: str, config: Any, task: str, split: Split, max_length: int) -> Inputs:
    """Tokenize, of speech what is to be said."""
    wanted = modality(config)
    tokenizer = load_tokenizer(model)
    pad = padding_token(tokenizer, config)

    def tokens_of(texts: Sequence[str]) -> list[list[int]]:
        remedy = "check its tokenizer's files, or raise max_length"
        with library_errors(f"the tokenizer of model '{model}' failed at max_length {max_length}", remedy):
            rows = encode(tokenizer, texts, max_length, pad)
        check_tokens(model, config, tokenizer, rows)
        return rows

    if getattr(config, "is_encoder_decoder", False) and task in ("seq2seq", "features"):
        targets, labelled = _targets(split, tokens_of), split.labels is not None
        start = getattr(config, "decoder_start_token_id", None)
        start = pad if start is None else int(start)
        check_tokens(model, config, tokenizer, [[start]])
        if wanted == "audio":
            from .audio import SpeechInputs

            extractor, heard = load_feature_extractor(model), int(config.max_source_positions)
            return SpeechInputs(split.items, extractor, heard, targets, pad, start, labelled)
        return PairInputs(tokens_of(split.texts), targets, pad, start, labelled)
    if wanted == "audio" or task == "seq2seq":
        raise InputError(
            f"task '{task}' does not fit model '{model}' ({config.model_type}); name another model or task"
        )
    tokens = tokens_of(split.texts)
    if task == "causal-lm":
        return TextInputs(tokens, pad, predict_next=True)
    return TextInputs(tokens, pad, _labels(task, split))


def _targets(split: Split, tokens_of: Callable[[Sequence[str]], list[list[int]]]) -> list[list[int]]:
    if split.labels is None:
        return [[] for _ in range(len(split))]
    if not all(isinstance(label, str) for label in split.labels):
        raise InputError("sequence to sequence needs target texts; name their column with label=...")
    return tokens_of([str(label) for label in split.labels])


def _labels(task: str, split: Split) -> Any:
    """Return a split's labels as the task's loss takes them."""
    import torch

    if split.labels is None or task == "features":
        return None
    first = split.labels[0]
    if task == "regression":
        if isinstance(first, str):
            raise InputError(f"regression needs numbers, this data set's labels are texts ('{first[:40]}')")
        return torch.tensor(split.labels, dtype=torch.float32)
    if not isinstance(first, int):
        what = "texts" if isinstance(first, str) else "numbers"
        raise InputError(f"{task} needs classes, this data set's labels are {what}; name the task with task=...")
    return torch.tensor(split.labels, dtype=torch.long)


def _images(model: str, config: Any, task: str, split: Split, max_length: int) -> Inputs:
    grid = PatchGrid.of(config)
    side = grid.within(max_length)
    if side < 1:
        raise InputError(
            f"max_length {max_length}: an image needs at least {grid.special + 1} tokens in model '{model}'"
        )
    mean, deviation = image_statistics(model)
    tokens, labels = side * side + grid.special, _labels(task, split)
    return ImageInputs(split.items, tokens, side * grid.patch, mean, deviation, labels, grid.arguments(side))
