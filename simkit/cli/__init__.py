"""The command ``simkit``: data on stdout, progress and messages on stderr, exit codes that mean something."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from . import check, explore, look, road, trace

app = typer.Typer(
    name="simkit",
    help="Replay real activation traces of tuned transformers on models of zero-skip hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (road, look, check, explore):
    module.add_to(app)
app.add_typer(trace.app, name="trace")


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
) -> None:
    pass


def main() -> None:
    """Run the command; an expected error is one line on stderr and an exit code by kind."""
    # torch's threads spin while they wait: on cores that others use too, a step takes several times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app(standalone_mode=True)
    except (KeyboardInterrupt, SystemExit) as ended:
        # typer turns Ctrl-C into an exit of its own
        if isinstance(ended, SystemExit) and ended.code != 130:
            raise
        typer.echo("simkit: stopped; the same command goes on where it was", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None or os.environ.get("SIMKIT_DEBUG"):
            raise
        typer.echo(f"simkit: error: {error}", err=True)
        sys.exit(code)
