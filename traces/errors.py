"""Errors of the recorder and the tuner: one clear line each, with an exit code for the command line."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self


class TraceError(Exception):
    """Base of every error this package raises on purpose.

    A package that uses this one may set `raised_as` of a class to a subclass that belongs to its own errors too; every
    such error is then an instance of it.
    """

    exit_code = 1
    raised_as: ClassVar[type[TraceError] | None] = None

    def __new__(cls, *args: Any) -> Self:
        """Make the error, of the class that stands in for this one where there is one."""
        return super().__new__(cls.__dict__.get("raised_as") or cls, *args)


class InputError(TraceError, ValueError):
    """Input that cannot be used: the message says what is wrong, where, and the remedy."""

    exit_code = 2


class CorruptError(TraceError):
    """Stored data that is truncated or altered: the message names the chunk or file."""

    exit_code = 3


class FetchError(TraceError):
    """A package or download that is unavailable: the message says how to supply it by hand."""

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


# what transformers, tokenizers, peft, safetensors and torch raise when a file or a batch is at fault
LIBRARY_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, LookupError, ImportError, EOFError)
LIBRARY_ERRORS += (AssertionError, pickle.UnpicklingError)
LIBRARIES = ("safetensors", "safetensors_rust", "huggingface_hub", "tokenizers", "jinja2")  # with types of their own
OWN = ("traces.", "simkit.", "hwmodels.")


@contextmanager
def library_errors(what: str, remedy: str, kind: type[TraceError] = InputError) -> Iterator[None]:
    """Translate errors of the libraries that load and run models into one line of this package's.

    An error that this package's own code raises is a programming error: it passes unchanged, as does a `TypeError` or
    an `AttributeError` from anywhere. So does a lack of GPU memory: what has to be smaller is the caller's to say. The
    original stays attached as the cause.

    Parameters
    ----------
    what : str
        What failed, with the model's or the file's name: ``could not load model 'x'``.
    remedy : str
        What the user can do.
    kind : type of TraceError
        What is raised: ``WHAT (first line of the library's message); REMEDY``.

    Raises
    ------
    TraceError
        Of the given kind, in place of a library's error.
    """
    try:
        yield
    except TraceError:
        raise
    except Exception as error:
        if not _from_library(error):
            raise
        raise kind(f"{what} ({first_line(error)}); {remedy}") from error


def _from_library(error: Exception) -> bool:
    kind = type(error)
    if kind.__name__ == "OutOfMemoryError":
        return False
    # tokenizers raises Exception itself for a damaged file
    known = isinstance(error, LIBRARY_ERRORS) or kind is Exception or kind.__module__.split(".")[0] in LIBRARIES
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return known and not place.startswith(OWN)


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something, with the error's type where that is all it is clear by.

    Messages that open with a heading (``Error(s) in loading ...:``) go on to the next line.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {said}" if isinstance(error, LookupError) else said
