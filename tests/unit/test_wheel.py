"""A built wheel works from any folder, its YAML and data files inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as an installer lays it out."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("zeroskip-*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run_elsewhere(site: Path, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "simkit", *args]
    done = subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_archs_and_tables_are_inside(unpacked: Path) -> None:
    names = {row["name"] for row in json.loads(run_elsewhere(unpacked, "ls", "archs", "--json"))}
    assert names == {path.stem for path in (ROOT / "hwmodels" / "archs").glob("*.yaml")}
    assert json.loads(run_elsewhere(unpacked, "show", "table", "default_45nm", "--json"))["name"] == "default_45nm"
    # the points that costs are interpolated from travel too
    assert json.loads(run_elsewhere(unpacked, "show", "arch", "eie", "--json"))["derived"]["parts"]


def test_every_data_file_is_inside(unpacked: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "hwmodels", "traces", "simkit"], cwd=ROOT, capture_output=True, text=True
    )
    wanted = set(tracked.stdout.split()) if tracked.returncode == 0 else set()
    missing = {name for name in wanted if (ROOT / name).is_file() and not (unpacked / name).is_file()}
    assert not missing


def test_code_comes_from_the_wheel(unpacked: Path) -> None:
    code = "import simkit, hwmodels, traces; print(simkit.__file__, hwmodels.__file__, traces.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=unpacked.parent, env=environment, capture_output=True, text=True
    )
    assert all(Path(place).is_relative_to(unpacked) for place in done.stdout.split())
