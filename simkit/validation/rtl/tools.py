"""External tools: find them, run them, keep their logs, and say in one line what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from traces import fetch

from ...errors import UnavailableError

SOURCES = Path(__file__).resolve().parents[3] / "hwmodels" / "reference" / "rtl"
OLDEST_VERILATOR = (5, 6)


def cache_folder(kind: str) -> Path:
    """Return (and make) the folder in which artefacts of one kind are kept between runs."""
    folder = fetch.cache_folder() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@lru_cache(maxsize=1)
def verilator_version() -> str:
    """Return the version line of Verilator.

    Raises
    ------
    UnavailableError
        If there is no Verilator, or one older than 5.006.
    """
    path = shutil.which("verilator")
    if path is None:
        raise UnavailableError(
            "RTL needs Verilator 5.006 or newer; install it, e.g. `apt-get install verilator g++ make`"
        )
    line = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.search(r"(\d+)\.(\d+)", line)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_VERILATOR:
        raise UnavailableError(
            f"'{path}' is {line or 'of no known version'}; RTL needs Verilator 5.006 or newer (Debian 12 ships it)"
        )
    for tool in ("g++", "make"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"Verilator needs '{tool}' to build; install it, e.g. `apt-get install g++ make`")
    return line


def run_logged(command: Sequence[str], log: Path, what: str, *, timeout_s: int = 900) -> None:
    """Run a tool with its output in a file.

    Raises
    ------
    UnavailableError
        If it fails or takes too long; the message names the log and quotes its first line with an error.
    """
    with log.open("w", encoding="utf-8") as out:
        try:
            done = subprocess.run(
                list(command), stdout=out, stderr=subprocess.STDOUT, timeout=timeout_s, check=False, cwd=log.parent
            )
        except subprocess.TimeoutExpired as late:
            raise UnavailableError(f"{what} did not end within {timeout_s} s; its log is {log}") from late
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        first = next((line.strip() for line in lines if "rror" in line), lines[-1].strip() if lines else "no output")
        raise UnavailableError(f"{what} failed: {first[:200]} (whole log: {log})")
