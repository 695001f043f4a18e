"""Traces in object stores: a real S3-compatible server on loopback, started here."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traces
from traces.errors import CorruptError, InputError
from traces.storage.folder import Folder

pytest.importorskip("s3fs", reason="s3fs is not installed")
server_module = pytest.importorskip("moto.server", reason="moto is not installed")
# the client libraries leave their event loop's sockets to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """Storage options of a running server; credentials are the server's own made-up ones."""
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield {"key": "test", "secret": "test", "endpoint_url": f"http://{host}:{port}"}
    server.stop()


@pytest.fixture
def bucket(options: dict[str, Any]) -> str:
    import s3fs

    name = f"traces-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem(**options).mkdir(name)
    return name


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "m.npz", x=rng.random((5000, 700)) < 0.1)
    return tmp_path / "m.npz"


@pytest.mark.slow
def test_a_trace_in_a_bucket_equals_the_local_one(
    options: dict[str, Any], bucket: str, npz: Path, tmp_path: Path
) -> None:
    local = traces.import_masks(npz, tmp_path / "t.zarr", n=5)
    remote = traces.import_masks(npz, f"s3://{bucket}/t.zarr", n=5, storage_options=options)
    assert remote.hash == local.hash
    remote.verify()
    again = traces.open_trace(f"s3://{bucket}/t.zarr", options)
    blocks = list(again.sites["x"].mask().blocks(1000))
    assert np.array_equal(np.concatenate(blocks), local.sites["x"].mask().words())


@pytest.mark.slow
def test_a_lost_or_altered_object_is_named(options: dict[str, Any], bucket: str, npz: Path) -> None:
    path = f"s3://{bucket}/t.zarr"
    trace = traces.import_masks(npz, path, n=5, storage_options=options)
    folder = Folder(path, options)
    data = folder.read("sites/x/mask/c/0/0")
    assert data is not None
    folder.write("sites/x/mask/c/0/0", data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(CorruptError, match="sites/x/mask: chunk 0"):
        traces.open_trace(path, options).verify()
    folder.fs.rm(f"{folder.root}/sites/x/mask/c/0/0")
    folder.fs.invalidate_cache()
    with pytest.raises(CorruptError, match="chunk 0"):
        traces.open_trace(path, options).verify()
    assert trace.status == "complete"


@pytest.mark.slow
def test_recording_into_a_bucket_goes_on_where_it_was(
    options: dict[str, Any],
    bucket: str,
    tiny_model: str,
    tiny_data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from traces.recording import recorder

    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.0)
    given = {"data": tiny_data, "limit": 12, "batch_size": 4, "progress": False}
    local = traces.record(tiny_model, out=tmp_path / "t.zarr", **given)
    run_batch, calls = recorder.run_batch, []

    def stopping(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_batch(*arguments)

    monkeypatch.setattr(recorder, "run_batch", stopping)
    path = f"s3://{bucket}/r.zarr"
    with pytest.raises(KeyboardInterrupt):
        traces.record(tiny_model, out=path, storage_options=options, **given)
    assert 0 < traces.open_trace(path, options).rows < local.rows
    assert traces.record(tiny_model, out=path, storage_options=options, **given).hash == local.hash


def test_no_trace_and_no_such_protocol(options: dict[str, Any], bucket: str) -> None:
    with pytest.raises(InputError, match="no trace at"):
        traces.open_trace(f"s3://{bucket}/none.zarr", options)
    with pytest.raises(InputError, match="cannot open"):
        traces.open_trace("nosuch://bucket/t.zarr")
