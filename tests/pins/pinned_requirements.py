"""What the public wheels require, recorded, and whether constraints.txt agrees with it.

``requirements.json`` holds, for each Python version and each pinned package, what the metadata of PyPI's Linux wheel
says; ``refresh.py`` writes it, the functions here read it, and neither looks at what is installed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from simkit.measure.wheelhouse import reached

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("requirements.json")
PYTHONS = ("3.11", "3.12")
REFRESH = "run python tests/pins/refresh.py"
# the environment itself: what makes it and what builds the project in it
TOOLS = ("pip",)


class Record(NamedTuple):
    """One wheel's metadata.

    Parameters
    ----------
    version : str
    python : str
        ``Requires-Python``.
    wheel_bytes : int
        Size of the file.
    requires : list of str
        ``Requires-Dist``, less the extras that nothing asks for.
    extras : list of str
        Extras whose requirements are among them.
    """

    version: str
    python: str
    wheel_bytes: int
    requires: Sequence[str]
    extras: Sequence[str]


Table = Mapping[str, Mapping[str, Record]]


def read_table(path: Path = TABLE) -> Table:
    """Read the recorded table: Python version, then package."""
    read: dict[str, dict[str, dict[str, Any]]] = json.loads(path.read_text())
    return {python: {name: Record(**one) for name, one in records.items()} for python, records in read.items()}


def read_pins(path: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """Read the constraints file: package to version."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): version for name, version in pairs}


def wanted(path: Path = ROOT / "pyproject.toml") -> list[str]:
    """Return what the project, each of its extras and each of its groups ask for."""
    read = tomllib.loads(path.read_text())
    project = read["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values(), *read["dependency-groups"].values()]
    return [*TOOLS, *(one for asked in lists for one in asked)]


def asked_by_users(extras: Sequence[str], path: Path = ROOT / "pyproject.toml") -> list[str]:
    """Return what the project asks for with some of its extras."""
    project = tomllib.loads(path.read_text())["project"]
    return [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]


def walk(python: str, records: Mapping[str, Record], start: Sequence[str]) -> Iterator[tuple[str, Requirement]]:
    """Walk from `start` over the records; yield who requires, and what, each pair once."""
    requires = {name: record.requires for name, record in records.items()}
    for by, requirement in reached(start, requires, python):
        yield f"{by} {records[by].version}" if by else "pyproject.toml", requirement


def problems(pins: Mapping[str, str], table: Table, start: Sequence[str]) -> list[str]:
    """Say where pins and recorded requirements disagree, one line each; nothing where pip can resolve them."""
    said: list[str] = []
    needed: set[str] = set()
    for python, records in table.items():
        for by, requirement in walk(python, records, start):
            name = canonicalize_name(requirement.name)
            needed.add(name)
            if name not in pins:
                said.append(f"Python {python}: {by} requires {requirement.name}, which is not pinned")
            elif not requirement.specifier.contains(pins[name], prereleases=True):
                wants = f"{requirement.name}{requirement.specifier}"
                said.append(f"Python {python}: {by} requires {wants}, but {pins[name]} is pinned")
            missing = requirement.extras - set(records[name].extras) if name in records else set()
            said += [f"Python {python}: {name}[{extra}] is not in the recorded table; {REFRESH}" for extra in missing]
        for name, version in pins.items():
            record = records.get(name)
            if record is None or record.version != version:
                was = "no version" if record is None else record.version
                said.append(f"Python {python}: {name}=={version} is pinned, {was} recorded; {REFRESH}")
            elif not SpecifierSet(record.python).contains(f"{python}.0"):
                said.append(f"Python {python}: {name} {version} requires Python {record.python}")
    said += [f"{name} is pinned, but nothing requires it" for name in sorted(set(pins) - needed)]
    return said


def downloads(python: str, table: Table, start: Sequence[str]) -> dict[str, int]:
    """Return the wheels that `start` brings with all they require: package to size in byte."""
    records = table[python]
    names = {canonicalize_name(requirement.name) for _, requirement in walk(python, records, start)}
    return {name: records[name].wheel_bytes for name in sorted(names) if name in records}
