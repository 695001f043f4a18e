"""The raw keys of a store: a local path or an fsspec URL."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, StorageError


class Folder:
    """The raw keys of a store: a local path or an fsspec URL.

    Parameters
    ----------
    path : str
        ``T.zarr`` or ``s3://bucket/T.zarr``.
    options : dict, optional
        Passed to fsspec, such as credentials or an endpoint.
    """

    def __init__(self, path: str, options: Mapping[str, Any] | None = None) -> None:
        import fsspec

        self.path = str(path).rstrip("/")
        self.options = dict(options or {})
        self.is_url = "://" in self.path
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.path, **self.options)
        except (ImportError, ValueError) as error:
            raise InputError(f"cannot open '{self.path}': {error}") from error

    def store(self, read_only: bool) -> Any:
        """Return the zarr store."""
        from zarr.storage import FsspecStore, LocalStore

        if self.is_url:
            return FsspecStore.from_url(self.path, storage_options=self.options or None, read_only=read_only)
        return LocalStore(self.root, read_only=read_only)

    def read(self, key: str) -> bytes | None:
        """Return a key's bytes, None where it is not there."""
        try:
            data: bytes = self.fs.cat_file(f"{self.root}/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise StorageError(f"no right to read {self.path}/{key}: {error}") from error
        except Exception as error:  # a store's client raises types of its own, for want of rights among them
            raise StorageError(f"cannot read {self.path}/{key}: {error}; check the address and your rights") from error
        return data

    def write(self, key: str, data: bytes) -> None:
        """Write a key whole or not at all."""
        target = f"{self.root}/{key}"
        if self.is_url:
            self.fs.pipe_file(target, data)
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{secrets.token_hex(8)}.partial"
        try:
            with open(temporary, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
