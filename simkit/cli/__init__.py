"""The command ``simkit``: data on stdout, progress and messages on stderr, exit codes that mean something."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from . import compare, cost, diff, explore, inspect, pipeline, trace, validation, verbosity
from .output import escaped

EPILOG = (
    "Exit codes: 0 done, 1 a check failed, 2 bad input, 3 damaged data, 4 something is unavailable, 5 numbers that "
    "are not finite, 6 storage failed, 130 stopped. Results go to stdout, progress and messages to stderr. NO_COLOR is "
    "kept to; SIMKIT_DEBUG=1 shows where an error came from."
)
# what a stopped run of these has done is kept, and not done again
RESUME = ("demo", "tune", "record", "sweep", "search", "measure", "compare")

app = typer.Typer(
    name="simkit",
    help="Replay real activation traces of tuned transformers on models of zero-skip hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for module in (pipeline, inspect, validation, explore, cost, diff):
    module.add_to(app)
app.add_typer(trace.app, name="trace")
app.add_typer(compare.app, name="compare")
for group in (app, trace.app, compare.app):
    for info in group.registered_commands:
        assert info.callback is not None
        info.callback = verbosity.talking(info.callback)


def _version(wanted: bool) -> None:
    if wanted:
        from simkit import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    quiet: verbosity.Quiet = False,
    verbose: verbosity.Verbose = 0,
) -> None:
    verbosity.settle(quiet, verbose)


def main() -> None:
    """Run the command; an expected error is one line on stderr and an exit code by kind."""
    # torch's threads spin while they wait: on cores that others use too, a step takes several times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    verbosity.begin()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a file's name may hold bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="simkit", standalone_mode=True)
    except (KeyboardInterrupt, SystemExit) as ended:
        # typer turns Ctrl-C into an exit of its own
        if isinstance(ended, SystemExit) and ended.code != 130:
            raise
        resumes = any(word in RESUME for word in sys.argv[1:3])
        kept = "the same command resumes" if resumes else "nothing is half-written, run it again"
        typer.echo(f"simkit: stopped; {kept}", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        code, text = getattr(error, "exit_code", None), str(error)
        if code is None and isinstance(error, OSError) and error.filename:
            code, text = 6, f"{error.filename}: {error.strerror}"
        if code is None or os.environ.get("SIMKIT_DEBUG"):
            raise
        for line in escaped(text).splitlines() or [type(error).__name__]:
            typer.echo(f"simkit: error: {line}", err=True)
        sys.exit(code)
