"""Errors of the hardware models: one clear line each, with an exit code for the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar, Self


class InputError(ValueError):
    """Input that cannot be used: the message says what is wrong, where, and the remedy.

    A package that uses this one may set `raised_as` to a subclass that belongs to its own errors too; every such error
    is then an instance of it.
    """

    exit_code = 2
    raised_as: ClassVar[type[InputError] | None] = None

    def __new__(cls, *args: Any) -> Self:
        """Make the error, of the class that stands in for this one where there is one."""
        return super().__new__(cls.__dict__.get("raised_as") or cls, *args)


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
