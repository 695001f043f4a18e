"""Images and speech that packages carry."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError
from ..fetch import Package, unpacked
from ..models.loaders.common import Extract, needed
from .splits import Data, Split, cut

FASHION = Package(
    "dataset-fashion-mnist=0.0~git20200523.55506a9-1",
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    client="apt-get",
)
SPEECH = Package(
    "pocketsphinx-testdata=0.8+5prealpha+1-15",
    "pocketsphinx-testdata_0.8+5prealpha+1-15_all.deb",
    "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
    client="apt-get",
)
GARMENTS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def from_deb(prefix: str) -> Extract:
    """Copy every file under `prefix` in a Debian package, without dpkg and without installing it.

    A package is an ``ar`` archive: 8 bytes, then members with a header of 60 bytes (name in the first 16, size in
    decimal in bytes 48 to 58), each padded to an even length; ``data.tar.*`` is the content.
    """

    def extract(archive: Path, folder: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(_deb_content(archive))) as content:
            for entry in content:
                name = entry.name.removeprefix("./")
                handle = content.extractfile(entry) if name.startswith(prefix) and entry.isfile() else None
                if handle is not None:
                    target = folder / name[len(prefix) :]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(handle.read())

    return extract


def _deb_content(archive: Path) -> bytes:
    """Return the ``data.tar.*`` member of a Debian package.

    Raises
    ------
    CorruptError
        If it has none.
    """
    data = archive.read_bytes()
    place = 8 if data.startswith(b"!<arch>\n") else len(data)
    while place + 60 <= len(data):
        name, size = data[place : place + 16], int(data[place + 48 : place + 58])
        if name.startswith(b"data.tar"):
            return data[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
    raise CorruptError(f"{archive.name} is not a Debian package with content; delete it and fetch it anew")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes: two zero bytes, type 8, rank, then each dimension as big-endian u32.

    Raises
    ------
    CorruptError
        If it is something else, or truncated.
    """
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4).astype(int)
    if data[:3] != b"\0\0\x08" or len(data) != 4 + 4 * rank + int(shape.prod()):
        raise CorruptError(f"{path.name} is no IDX file of bytes, or truncated")
    return np.frombuffer(data, np.uint8, -1, 4 + 4 * rank).reshape(shape)


def fashion_mnist() -> Data:
    """Pictures of garments, 28 x 28 grey, with the split they were published with."""
    folder = unpacked(FASHION, "data-fashion-mnist", from_deb("usr/share/datasets/fashion-mnist/"))
    splits = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")
        splits[split] = Split(images, tuple(int(label) for label in labels), "images")
    return Data("fashion-mnist", splits["train"], splits["test"], GARMENTS, {"split": "as published"})


def digits() -> Data:
    """Handwritten digits, 8 x 8 grey, bundled with scikit-learn; grey levels 0 .. 16 are spread over 0 .. 255."""
    bunch = needed("sklearn.datasets", "data set 'digits'", "data").load_digits()
    images: NDArray[Any] = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = [int(label) for label in bunch.target]
    return cut("digits", images, labels, 360, tuple("0123456789"), "images")


def speech() -> Data:
    """Five spoken card hands to train on, five sentences of a novel read aloud held out; 16 kHz, with transcripts."""
    folder = unpacked(SPEECH, "data-speech", from_deb("usr/share/pocketsphinx/test/data/"))
    splits = {}
    for split, place, file in (("train", "cards", "cards.transcription"), ("test", "librivox", "transcription")):
        said = {}
        for line in (folder / place / file).read_text(encoding="utf-8").splitlines():
            words, _, name = line.strip().rpartition("(")
            said[name.rstrip(")")] = words.replace("<s>", "").replace("</s>", "").strip()
        files = sorted((folder / place).glob("*.wav"))
        splits[split] = Split(tuple(str(f) for f in files), tuple(said[f.stem] for f in files), "audio")
    return Data("speech", splits["train"], splits["test"], (), {"label": "what is said"})
