"""A URL without rights: a gate before a real S3-compatible server answers 403, as a store does to wrong credentials."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traces
from simkit.cli import app
from traces.errors import StorageError
from traces.recording import recorder

pytest.importorskip("s3fs", reason="s3fs is not installed")
server_module = pytest.importorskip("moto.server", reason="moto is not installed")
# the client libraries leave their event loop's sockets to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

REFUSED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


class Gate:
    """A store that refuses requests by method, or every PUT after so many."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind
        self.refused: frozenset[str] = frozenset()
        self.puts_left = 1 << 30
        self.url = ""

    def __call__(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        self.puts_left -= method == "PUT"
        if method in self.refused or (method == "PUT" and self.puts_left < 0):
            body = b"" if method == "HEAD" else REFUSED
            respond("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        found: Iterable[bytes] = self.behind(environ, respond)
        return found


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    from werkzeug.serving import make_server

    made = Gate(server_module.DomainDispatcherApplication(server_module.create_backend_app))
    server = make_server("127.0.0.1", 0, made, threaded=True)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def place(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket whose rights are as a command finds them: in the environment."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "wrong",
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": gate.url,
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    gate.refused, gate.puts_left = frozenset(), 1 << 30
    bucket = f"traces-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/t.zarr"


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "m.npz", x=np.random.default_rng(0).random((500, 70)) < 0.1)
    return tmp_path / "m.npz"


def said(*arguments: str) -> str:
    """The one line of a command that fails for want of rights."""
    with pytest.raises(StorageError) as caught:
        app(list(arguments), standalone_mode=False)
    assert caught.value.exit_code == 6
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.slow
def test_nothing_may_be_read(gate: Gate, place: str, npz: Path) -> None:
    traces.import_masks(npz, place, n=5)
    gate.refused = frozenset({"GET", "HEAD", "PUT"})
    for verb in ("info", "verify"):
        line = said("trace", verb, place)
        assert place in line
        assert "right" in line
    gate.refused = frozenset()
    traces.open_trace(place).verify()


@pytest.mark.slow
def test_nothing_may_be_written(gate: Gate, place: str, npz: Path, tiny_model: str, tiny_data: str) -> None:
    gate.refused = frozenset({"PUT", "POST"})
    for arguments in (
        ("trace", "import", str(npz), "--n", "5", "-o", place),
        ("record", "--model", tiny_model, "--data", tiny_data, "--limit", "2", "-o", place),
    ):
        line = said(*arguments)
        assert place in line
        assert "rights" in line


@pytest.mark.slow
def test_rights_lost_on_the_way_lose_nothing_that_was_finished(
    gate: Gate, place: str, tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.0)
    given = {"data": tiny_data, "limit": 12, "batch_size": 2, "progress": False}
    whole = traces.record(tiny_model, out=tmp_path / "t.zarr", **given)
    gate.puts_left = 60
    with pytest.raises(StorageError, match=r"rows are kept: get the rights.*run the same command") as caught:
        traces.record(tiny_model, out=place, **given)
    assert "\n" not in str(caught.value)
    gate.puts_left = 1 << 30
    left = traces.open_trace(place)
    left.verify()
    assert 0 < left.rows < whole.rows
    assert traces.record(tiny_model, out=place, **given).hash == whole.hash
