"""What is written comes back, what was damaged is named, and two writers do not meet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traces
from traces import files
from traces.errors import CorruptError, InputError, StorageError
from traces.storage.arrays import SiteMeta, chunk_rows
from traces.storage.bits import pack
from traces.storage.chunks import content_hash
from traces.storage.store import Writer, squeeze
from traces.storage.trace import open_trace
from traces.transform.edit import _inherited
from traces.transform.import_masks import flat_columns

ATTRS = {
    "ops": squeeze([]),
    "tuning": {"name": "x"},
    "model": {"name": "x"},
    "data": {},
    "measurements": {},
    "synthetic": False,
}
K, ROWS = 1536, 9000  # three chunks a site


def write(
    path: str, masks: dict[str, np.ndarray], step: int = 2000, attrs: dict[str, Any] | None = None
) -> traces.Trace:
    """Write boolean masks in commits of `step` rows."""
    rows = len(next(iter(masks.values())))
    sites = [SiteMeta(name, i, "down", m.shape[1], 7) for i, (name, m) in enumerate(masks.items())]
    writer = Writer(path, rows, sites, attrs or ATTRS)
    columns = flat_columns(rows)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        writer.append({c: v[part] for c, v in columns.items()}, {n: pack(m[part]) for n, m in masks.items()})
        writer.commit()
    writer.commit(status="complete", hash=content_hash(open_trace(path)))
    writer.close()
    return open_trace(path)


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {name: rng.random((ROWS, K)) < density for name, density in (("a", 0.03), ("b", 0.4))}


@pytest.fixture(scope="module")
def stored(masks: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> traces.Trace:
    return write(str(tmp_path_factory.mktemp("store") / "t.zarr"), masks)


@pytest.fixture
def copy(stored: traces.Trace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored.path, tmp_path / "copy.zarr"))


def test_masks_come_back_in_blocks_of_any_size(stored: traces.Trace, masks: dict[str, np.ndarray]) -> None:
    assert 2 * chunk_rows(K // 8) < ROWS
    for name, mask in masks.items():
        lazy = stored.sites[name].mask()
        assert lazy.shape == mask.shape
        for size in (1000, 4096, 5000, 20000):
            blocks = list(lazy.blocks(size))
            assert [len(b) for b in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert np.array_equal(np.concatenate(blocks), pack(mask))
        assert lazy.popcount() == mask.sum()
    stored.verify()


def test_hash_says_content_and_not_how_it_was_written(
    stored: traces.Trace, masks: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert write(str(tmp_path / "one.zarr"), masks, step=ROWS).hash == stored.hash
    changed = {name: mask.copy() for name, mask in masks.items()}
    changed["b"][8999, 1535] ^= True
    assert write(str(tmp_path / "two.zarr"), changed).hash != stored.hash


def entropy_bytes(mask: np.ndarray) -> float:
    """Sum of the neurons' zero-order entropies."""
    p = mask.mean(axis=0)
    q = np.clip(np.stack([p, 1 - p]), 1e-300, 1)
    return float(-(q * np.log2(q)).sum() * len(mask) / 8)


@pytest.mark.slow
def test_size_is_near_the_entropy_and_below_the_packed_bits(small_trace_path: Path, tmp_path: Path) -> None:
    real = open_trace(small_trace_path)
    masks = {name: site.mask(real_only=False).to_bool() for name, site in real.sites.items()}
    for rows, place in ((1, small_trace_path), (40, tmp_path / "long.zarr")):
        if rows > 1:
            rng = np.random.default_rng(0)
            # longer, with each neuron's own density: harder than real, for its tokens have nothing in common
            masks = {n: rng.random((rows * len(m), m.shape[1])) < m.mean(axis=0) for n, m in masks.items()}
            write(str(place), masks)
        files = [f for f in Path(place, "sites").rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
        assert size <= 1.3 * sum(entropy_bytes(mask) for mask in masks.values())
        assert size < sum(mask.size for mask in masks.values()) / 8


def test_metadata_and_padding_stay_small_beside_a_nearly_dense_mask(small_trace_path: Path, tmp_path: Path) -> None:
    """An untuned GELU model's six masks have an entropy of some 40 kB: what is not mask may not take a third of it."""
    attrs = _inherited([open_trace(small_trace_path)])
    place = tmp_path / "t.zarr"
    write(str(place), {f"layers.{i}.down": np.ones((7744, K), dtype=bool) for i in range(6)}, attrs=attrs)
    files = {f.relative_to(place): f.stat().st_size for f in place.rglob("*") if f.is_file()}
    assert sum(size for name, size in files.items() if "mask" in name.parts and "c" in name.parts) < 6 * 500
    assert sum(files.values()) < 16_000


def test_noise_never_takes_more_than_its_bits(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((8192, 512)) < 0.5
    write(str(tmp_path / "t.zarr"), {"a": mask})
    assert (
        sum(f.stat().st_size for f in (tmp_path / "t.zarr" / "sites").rglob("c/**/*") if f.is_file())
        < 1.01 * mask.size / 8
    )


def test_xarray_reads_lazily(stored: traces.Trace, masks: dict[str, np.ndarray]) -> None:
    data = stored.to_xarray("a")["a"]
    assert not isinstance(data.variable._data, np.ndarray)
    assert np.array_equal(data[100:200].to_numpy(), pack(masks["a"][100:200]))


def every_file() -> list[str]:
    names = ["zarr.json", "tokens/zarr.json", "sites/zarr.json"]
    names += [
        f"tokens/{c}/{f}" for c in ("sequence", "position", "batch", "real", "phase") for f in ("zarr.json", "c/0")
    ]
    return names + [f"sites/{s}/{f}" for s in "ab" for f in ("zarr.json", "mask/zarr.json", "mask/c/0/0")]


@pytest.mark.parametrize("name", every_file())
def test_a_flipped_byte_anywhere_is_found_and_named(name: str, copy: Path) -> None:
    file = copy / name
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(len(data))
    for place in {0, len(data) // 2, len(data) - 1, *rng.integers(0, len(data), 3).tolist()}:
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(CorruptError, match=name.split("/c/")[0].removesuffix("/zarr.json")):
            open_trace(copy).verify()
    file.write_bytes(data)
    open_trace(copy).verify()


@pytest.mark.parametrize("name", every_file()[1:])
def test_a_missing_or_truncated_file_is_found_and_named(name: str, copy: Path) -> None:
    file = copy / name
    data = file.read_bytes()
    file.unlink()
    with pytest.raises(CorruptError, match=name.split("/c/")[0].removesuffix("/zarr.json")):
        open_trace(copy).verify()
    file.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(CorruptError, match=name.split("/c/")[0].removesuffix("/zarr.json")):
        open_trace(copy).verify()


def test_the_set_of_files_is_complete(copy: Path) -> None:
    found = {str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file()}
    assert found == set(every_file())


def test_another_schema_version_is_an_input_error(copy: Path) -> None:
    document = json.loads((copy / "zarr.json").read_text())
    document["attributes"]["schema"] = "zeroskip.trace/2"
    (copy / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"zeroskip\.trace/2"):
        open_trace(copy)


def test_what_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trace at"):
        open_trace(tmp_path / "nowhere.zarr")
    (tmp_path / "zarr.json").write_text('{"attributes": {}, "node_type": "group", "zarr_format": 3}')
    with pytest.raises(InputError, match="not a trace"):
        open_trace(tmp_path)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "t.zarr")
    first = Writer(path, 10, [SiteMeta("a", 0, "down", 64, 7)], ATTRS)
    with pytest.raises(StorageError, match="another process is writing"):
        Writer(path, 10, [SiteMeta("a", 0, "down", 64, 7)], ATTRS, resume=True)
    first.close()
    Writer(path, 10, [SiteMeta("a", 0, "down", 64, 7)], ATTRS, resume=True).close()


def test_a_second_writer_to_a_url_stops_the_first() -> None:
    sites = [SiteMeta("a", 0, "down", 64, 7)]
    path = f"memory://{os.getpid()}/taken-over.zarr"
    first = Writer(path, 10, sites, ATTRS)
    Writer(path, 10, sites, ATTRS, resume=True)
    with pytest.raises(StorageError, match="another process took over"):
        first.commit()


def test_nothing_is_overwritten(stored: traces.Trace) -> None:
    with pytest.raises(InputError, match="is there already"):
        Writer(stored.path, 10, [SiteMeta("a", 0, "down", 64, 7)], ATTRS)
    stored.verify()


def test_a_folder_without_rights(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write trace"):
        Writer(str(tmp_path / "file" / "t.zarr"), 10, [SiteMeta("a", 0, "down", 64, 7)], ATTRS)


def test_what_dead_processes_had_begun_is_removed_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead, alive = (tmp_path / f".a.parquet.0.{files.MACHINE}.{pid}.part" for pid in (done.pid, os.getpid()))
    other = tmp_path / f".a.parquet.0.00000000.{done.pid}.part"
    for path in (dead, alive, other):
        path.write_bytes(b"begun")
    files.clear_dead(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])
