"""Errors of the hardware models: one clear line each, with an exit code for the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: the message says what is wrong, where, and the remedy."""

    exit_code = 2


def nearest(name: str, options: Iterable[str]) -> str:
    """Phrase the closest known names, for the tail of an error line.

    Parameters
    ----------
    name : str
        What the user wrote.
    options : iterable of str
        What exists.

    Returns
    -------
    str
        ``"; did you mean 'a' or 'b'?"``, or the full list where nothing is close.
    """
    known = sorted(options)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "; known: " + (", ".join(known) if known else "none")
