"""The how-to for clusters, run as it stands: dask-jobqueue submits to a queue that runs each job at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import simkit as sk

pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue: pip install 'zeroskip[cluster]'")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "tests" / "data" / "minilm_relu_small.zarr"
# SLURM's two commands: the job runs here, and its id is that of its process group
QUEUE = {
    "sbatch": '#!/bin/bash\necho "$1" >> "$QUEUE/submitted"\nsetsid bash "$1" > /dev/null 2>&1 &\n'
    'echo $! >> "$QUEUE/jobs"\necho "Submitted batch job $!"\n',
    "scancel": '#!/bin/bash\necho "$@" >> "$QUEUE/cancelled"\nfor job in "$@"; do kill -- "-$job" 2> /dev/null; done\n',
}


@pytest.fixture
def queue(tmp_path: Path):
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, text in QUEUE.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    yield folder
    for job in (folder / "jobs").read_text().split() if (folder / "jobs").exists() else []:
        subprocess.run(["kill", "--", f"-{job}"], stderr=subprocess.DEVNULL, check=False)


def test_the_script_of_the_how_to_runs(queue: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "cluster.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "minilm_relu_small.zarr").symlink_to(TRACE)
    (tmp_path / "sweep.py").write_text(script, encoding="utf-8")
    env = {
        **os.environ,
        "PATH": f"{queue}{os.pathsep}{os.environ['PATH']}",
        "QUEUE": str(queue),
        "PYTHONPATH": str(ROOT),
        "NUMBA_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "sweep.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len((queue / "submitted").read_text().split()) >= 2
    result = sk.load_result(tmp_path / "sweep")
    assert len(result.meta["runs"]) == 6
    assert done.stdout.count("cnvlutin[lanes=") == 6
    alone = sk.replay(sk.load_trace(TRACE), sk.arch("cnvlutin", lanes=32, memory__bandwidth="10 GB/s"), ops=["down"])
    (run,) = alone.meta["runs"]
    assert result.meta["runs"][run]["totals"] == alone.meta["runs"][run]["totals"]
