"""Verbosity of commands on stderr: ``-q`` and ``-v``, before or after the name of any command."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

LOGGERS = ("simkit", "hwmodels", "traces")
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
# libraries that draw bars of their own
BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no log: results and errors alone.")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Log to stderr; -vv for all.")
]

_quiet = False


def progress() -> bool:
    """Whether a bar may be shown."""
    return not _quiet


def settle(quiet: bool, verbose: int) -> None:
    """Take in what was asked for; neither word leaves what the root's options said."""
    global _quiet
    if not (quiet or verbose):
        return
    _quiet = quiet
    if quiet:
        os.environ.update(dict.fromkeys(BARS, "1"))
        warnings.simplefilter("ignore")
    level = logging.CRITICAL if quiet else LEVELS[min(verbose, len(LEVELS) - 1)]
    for name in LOGGERS:
        logging.getLogger(name).setLevel(level)


def begin() -> None:
    """Start afresh: warnings go to stderr, each on one line."""
    global _quiet
    _quiet = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(LEVELS[0])
        logger.propagate = False


def talking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``-q`` and ``-v``."""

    @wraps(command)
    def told(*args: Any, quiet: bool = False, verbose: int = 0, **kwargs: Any) -> Any:
        settle(quiet, verbose)
        return command(*args, **kwargs)

    here = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in (("quiet", Quiet, False), ("verbose", Verbose, 0))
    ]
    told.__signature__ = here.replace(parameters=[*here.parameters.values(), *more])  # type: ignore[attr-defined]
    told.__annotations__ = {name: one.annotation for name, one in told.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return told
