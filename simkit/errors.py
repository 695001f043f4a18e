"""Errors that users see: one line each, with an exit code.

| code | meaning |
|---|---|
| 0 | done |
| 1 | a check failed (a validation that is off, a sweep with failed points) |
| 2 | bad input: an unknown name, a wrong field, a missing column |
| 3 | damaged data: a truncated or altered trace or result |
| 4 | something is unavailable: a package, a download, a device, a tool |
| 5 | numbers that are not finite: a tuning that diverged, activations with NaN |
| 6 | storage failed: a full disk, a URL without rights |
| 130 | stopped by the user; the same command resumes |

One tree: `hwmodels` and `traces` import no sibling, so each has errors of its own. From the import of this module on,
what they raise is of a class that belongs to their tree and to this one, so ``except sk.InputError`` catches bad input
from every verb, trace and arch, and ``except hwmodels.InputError`` goes on to catch what it did.
"""

from __future__ import annotations

import hwmodels.errors
import traces.errors


class ZeroskipError(Exception):
    """Base of every error that is raised on purpose."""

    exit_code = 1


class InputError(ZeroskipError, ValueError):
    """Input that cannot be used."""

    exit_code = 2


class CorruptError(ZeroskipError, RuntimeError):
    """Stored data that is damaged or of another schema."""

    exit_code = 3


class VersionError(CorruptError):
    """Stored data that another version wrote."""


class StorageError(ZeroskipError, RuntimeError):
    """A file that cannot be written: no space, no rights, no such place."""

    exit_code = 6


class UnavailableError(ZeroskipError, RuntimeError):
    """A tool, device, package or file from elsewhere that is not there."""

    exit_code = 4


class NumericError(ZeroskipError):
    """Numbers that are not finite: a tuning that diverged, activations with NaN."""

    exit_code = 5


class ModelInputError(InputError, hwmodels.errors.InputError):
    """`hwmodels.InputError` as simkit raises it."""


class TraceInputError(InputError, traces.errors.InputError):
    """`traces.InputError` as simkit raises it."""


class TraceCorruptError(CorruptError, traces.errors.CorruptError):
    """`traces.CorruptError` as simkit raises it."""


class TraceFetchError(UnavailableError, traces.errors.FetchError):
    """`traces.FetchError` as simkit raises it."""


class TraceNumericError(NumericError, traces.errors.NumericError):
    """`traces.NumericError` as simkit raises it."""


class TraceStorageError(StorageError, traces.errors.StorageError):
    """`traces.StorageError` as simkit raises it."""


hwmodels.errors.InputError.raised_as = ModelInputError
traces.errors.InputError.raised_as = TraceInputError
traces.errors.CorruptError.raised_as = TraceCorruptError
traces.errors.FetchError.raised_as = TraceFetchError
traces.errors.NumericError.raised_as = TraceNumericError
traces.errors.StorageError.raised_as = TraceStorageError
