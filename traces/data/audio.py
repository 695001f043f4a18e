"""Speech for an encoder-decoder: WAV files to log-mel features, transcripts to target tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .batches import Batch
from .items import Inputs, shift_right


def read_wav(path: str, rate: int) -> NDArray[np.float32]:
    """Read a WAV file as one channel in [-1, 1], resampled.

    Parameters
    ----------
    path : str
        The file.
    rate : int
        Samples per second wanted.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        own, samples = wavfile.read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"speech '{path}' cannot be read ({error}); give an uncompressed WAV file") from error
    values = samples.astype(np.float32)
    if samples.dtype == np.uint8:
        values = values / 128 - 1
    elif samples.dtype.kind == "i":
        values /= float(np.iinfo(samples.dtype).max) + 1
    if values.ndim > 1:
        values = values.mean(axis=1)
    common = gcd(own, rate)
    if own != rate:
        values = resample_poly(values, rate // common, own // common)
    return np.asarray(values, dtype=np.float32)


class SpeechInputs(Inputs):
    """Recordings with what is said in them.

    The encoder always sees a window of fixed length, filled up with silence, so that every one of its tokens is real.

    Parameters
    ----------
    paths : sequence of str
        WAV files.
    extractor : transformers.SequenceFeatureExtractor
        Makes the features.
    tokens : int
        Positions of the encoder.
    targets : list of list of int
        Tokens to predict.
    pad, start : int
        Padding token and the decoder's first.
    labelled : bool
        Whether the targets are known.
    """

    def __init__(
        self,
        paths: Sequence[str],
        extractor: Any,
        tokens: int,
        targets: list[list[int]],
        pad: int,
        start: int,
        labelled: bool,
    ) -> None:
        self.paths, self.extractor, self.labelled = list(paths), extractor, labelled
        # the tokenizer begins with the token that the decoder starts from: it is not one to predict
        self.said = [row[1:] if row[:1] == [start] else row for row in targets]
        self.pad, self.start = pad, start
        self.lengths = [tokens] * len(paths)
        self.targets = [max(1, len(row)) for row in self.said]

    def batch(self, rows: Sequence[int], side: str = "right") -> Batch:
        """Return ``input_features``, float32[B, mel, frames], and the shifted targets as ``decoder_input_ids``."""
        import torch

        rate = int(self.extractor.sampling_rate)
        sound = [read_wav(self.paths[row], rate) for row in rows]
        features = self.extractor(sound, sampling_rate=rate, return_tensors="pt").input_features
        shifted, labels, mask = shift_right([self.said[r] for r in rows], self.pad, self.start)
        heard = torch.ones((len(rows), self.lengths[0]), dtype=torch.bool)
        inputs = {"input_features": features, "decoder_input_ids": shifted}
        masks = {"encoder": heard, "decoder": mask}
        return Batch(np.asarray(rows, dtype=np.int64), inputs, heard, labels if self.labelled else None, masks)

    def fingerprint(self) -> bytes:
        """Return a digest of the files' bytes and of the targets."""
        digest = hashlib.sha256(json.dumps([self.said, self.lengths[:1]]).encode())
        for path in self.paths:
            digest.update(Path(path).read_bytes())
        return digest.digest()
