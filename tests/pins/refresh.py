"""Record what the pinned packages' public wheels require: ``python tests/pins/refresh.py``, a few minutes.

pip is asked for the metadata of the wheels on PyPI alone: no local wheels, no configuration, nothing installed. Sizes
come from its own listing of files. Writes ``requirements.json`` beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pinned_requirements import PYTHONS, ROOT, TABLE, Record, problems, read_pins, read_table, walk, wanted

INDEX = "https://pypi.org/simple"
GLIBC = (5, 12, 17, 18, 24, 25, 26, 27, 28, 31, 34, 35)
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + [
    "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64", "linux_x86_64", "any",
]  # fmt: skip


def ask_pip(python: str, folder: Path) -> list[dict[str, Any]]:
    """Return pip's report of the pinned wheels for one Python version."""
    report = folder / f"{python}.json"
    tag = "cp" + python.replace(".", "")
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--index-url", INDEX, "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--no-deps", "--only-binary=:all:", "--target", str(folder / "none")]
    command += ["--python-version", python, "--implementation", "cp", "--abi", tag, "--abi", "abi3", "--abi", "none"]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command += ["--requirement", str(ROOT / "constraints.txt"), "--report", str(report)]
    # --isolated leaves pip's environment variables out, and this its configuration files
    subprocess.run(command, check=True, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})
    installs: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return installs


def file_sizes(name: str) -> dict[str, int]:
    """Return the sizes of a project's files in byte, from the index's JSON listing (PEP 700)."""
    ask = urllib.request.Request(f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(ask, timeout=120) as answer:
        return {one["filename"]: one["size"] for one in json.load(answer)["files"]}


def without_unasked_extras(python: str, records: dict[str, Record]) -> dict[str, Record]:
    """Keep the requirements of extras that something asks for: the others are most of the metadata."""
    asked: dict[str, set[str]] = {}
    for _, requirement in walk(python, records, wanted()):
        asked.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    kept = {}
    for name, record in records.items():
        extras = sorted(asked.get(name, ()))
        lines = [
            line
            for line in record.requires
            if "extra ==" not in line or any(Requirement(line).marker.evaluate({"extra": extra}) for extra in extras)  # type: ignore[union-attr]
        ]
        kept[name] = record._replace(requires=lines, extras=extras)
    return kept


def main() -> int:
    """Write the table; exit code 1 where the pins do not agree with it."""
    names = sorted(read_pins())
    with ThreadPoolExecutor(4) as pool:
        sizes = dict(zip(names, pool.map(file_sizes, names), strict=True))
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        for python in PYTHONS:
            records = {}
            for one in ask_pip(python, Path(folder)):
                said = one["metadata"]
                name = canonicalize_name(said["name"])
                file = unquote(Path(urlsplit(one["download_info"]["url"]).path).name)
                records[name] = Record(
                    said["version"],
                    said.get("requires_python", ""),
                    sizes[name][file],
                    said.get("requires_dist", []),
                    [],
                )
            kept = without_unasked_extras(python, records)
            table[python] = {name: kept[name]._asdict() for name in sorted(kept)}
    lines = [
        f'"{python}": {{\n' + ",\n".join(f'"{name}": {json.dumps(one)}' for name, one in records.items()) + "\n}"
        for python, records in table.items()
    ]
    TABLE.write_text("{" + ",\n".join(lines) + "}\n")
    found = problems(read_pins(), read_table(), wanted())
    sys.stderr.write("".join(f"{line}\n" for line in found) + f"{len(names)} packages recorded in {TABLE.name}\n")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
