"""Killed at any moment, out of disk, or out of file size: what was finished is valid, and going on ends the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import traces
from traces.errors import StorageError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "unit" / "traces"))
from tiny_models import make_data, make_model  # noqa: E402

pytestmark = pytest.mark.slow

RECORD = """
import sys, time
import traces.recording.recorder as recorder
recorder.COMMIT_SECONDS = 0.0
if {slow}:
    from traces.recording.hooks import SiteTap
    take = SiteTap.take
    SiteTap.take = lambda self: (time.sleep({slow}), take(self))[1]
import torch
torch.set_num_threads(1)
print("ready", flush=True)
t = recorder.record({model!r}, data={data!r}, limit=24, out={out!r}, batch_size=2, progress=False)
print(t.hash, flush=True)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


def start(model: str, data: str, out: Path, slow: float) -> subprocess.Popen[str]:
    code = RECORD.format(model=model, data=data, out=str(out), slow=slow)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)


def test_recording_killed_twice_ends_like_an_undisturbed_one(model: str, data: str, tmp_path: Path) -> None:
    whole = traces.record(model, data=data, limit=24, out=tmp_path / "whole.zarr", batch_size=2, progress=False)
    out = tmp_path / "killed.zarr"
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(2):
        process = start(model, data, out, slow=0.15)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = rows[-1] if rows else 0
        deadline = time.monotonic() + 300  # importing torch alone takes a minute on a crowded machine
        while committed(out) <= before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.15)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if process.stderr:
            process.stderr.close()
        left = traces.open_trace(out)
        left.verify()
        rows.append(left.rows)
        assert left.status == "recording"
        for name, site in left.sites.items():
            first = whole.sites[name].mask(real_only=False).to_bool()[: left.rows]
            assert np.array_equal(site.mask(real_only=False).to_bool(), first)
    assert 0 < rows[0] < rows[1] < whole.rows
    done = traces.record(model, data=data, limit=24, out=out, batch_size=2, progress=False)
    assert done.hash == whole.hash
    done.verify()


def committed(out: Path) -> int:
    """Rows in the trace so far, -1 where there is none yet."""
    try:
        return traces.open_trace(out).rows
    except traces.InputError:
        return -1


WRITE = """
import sys
sys.path.insert(0, {unit!r})
from tiny_models import write_masks
{limit}
write_masks({out!r})
"""
LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
"""


def test_full_disk_keeps_what_was_finished(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: a write past it fails with an OSError in the same place."""
    whole, out = tmp_path / "whole.zarr", tmp_path / "full.zarr"
    unit = str(HERE.parent / "unit" / "traces")

    def write(path: Path, limit: str) -> subprocess.CompletedProcess[str]:
        code = WRITE.format(unit=unit, out=str(path), limit=limit)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert write(whole, "").returncode == 0
    failed = write(out, LIMIT)
    assert failed.returncode != 0
    assert "rows are kept: free space and run the same command again" in failed.stderr.strip().splitlines()[-1]
    left = traces.open_trace(out)
    left.verify()
    assert 0 < left.rows < traces.open_trace(whole).rows
    assert not list(out.rglob("*.partial"))
    assert write(out, "").returncode == 0
    assert traces.open_trace(out).hash == traces.open_trace(whole).hash


def test_two_recorders_at_once(model: str, data: str, tmp_path: Path) -> None:
    out = tmp_path / "t.zarr"
    first = start(model, data, out, slow=0.15)
    while committed(out) <= 0:
        time.sleep(0.01)
    with pytest.raises(StorageError, match="another process is writing"):
        traces.record(model, data=data, limit=24, out=out, batch_size=2, progress=False)
    printed, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert printed.split()[-1] == traces.open_trace(out).hash


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write anywhere")
def test_a_place_without_rights(model: str, data: str, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    os.chmod(tmp_path, 0o755)
    code = RECORD.format(model=model, data=data, out=str(tmp_path / "closed" / "t.zarr"), slow=0)
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "StorageError: cannot write trace" in run.stderr.strip().splitlines()[-1]
