"""Errors that users see: one line each, with an exit code.

| code | meaning |
|---|---|
| 0 | done |
| 1 | a check failed (a validation that is off, a sweep with failed points) |
| 2 | bad input: an unknown name, a wrong field, a missing column |
| 3 | damaged data: a truncated or altered trace or result |
| 4 | something could not be had: a package, a download, a device, a tool |
| 5 | numbers that are not finite: a tuning that diverged, activations with NaN |
| 6 | storage failed: a full disk, a URL without rights |
| 130 | stopped by the user; the same command goes on where it was |
"""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used."""

    exit_code = 2


class CorruptError(RuntimeError):
    """Stored data that is damaged or of another schema."""

    exit_code = 3


class VersionError(CorruptError):
    """Stored data that another version wrote."""


class StorageError(RuntimeError):
    """A file that cannot be written: no space, no rights, no such place."""

    exit_code = 6


class UnavailableError(RuntimeError):
    """A tool, device, package or file from elsewhere that is not there."""

    exit_code = 4
