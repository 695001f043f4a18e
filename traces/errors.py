"""Errors of the recorder and the tuner: one clear line each, with an exit code for the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TraceError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InputError(TraceError, ValueError):
    """Input that cannot be used: the message says what is wrong, where, and the remedy."""

    exit_code = 2


class CorruptError(TraceError):
    """Stored data that is truncated or altered: the message names the chunk or file."""

    exit_code = 3


class FetchError(TraceError):
    """A package or download that cannot be had: the message says how to supply it by hand."""

    exit_code = 4


class NumericError(TraceError):
    """Non-finite activations or loss: the message counts and names them."""

    exit_code = 5


class StorageError(TraceError):
    """A full disk, a lack of rights, or a second writer: what was finished is kept."""

    exit_code = 6


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Phrase the nearest known names, for the tail of an error line.

    Parameters
    ----------
    name : str
        What the user wrote.
    options : iterable of str
        What exists.

    Returns
    -------
    str
        ``"; did you mean 'a' or 'b'?"``, or the whole list where nothing is near.
    """
    known = sorted(options)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "; known: " + (", ".join(known) if known else "none")
