"""What must hold after any command or call, whatever it was given: see `run_command`, `call` and `Fault`."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import event

import simkit as sk
from simkit import cli

CODES = frozenset(range(7))
# processor time of one example, all threads; most take a hundredth of it
SECONDS, WALL_SECONDS = 10, 60
GROWTH_BYTES = 2 << 30
# kept on purpose where a command fails: done points of a sweep or a search are not computed again
RESUMABLE = ("sweep", "search")
FLAGS = ("--json", "-q", "-v", "--yes", "--dry-run", "--header", "--no-header", "--index", "--no-index", "--pending")
NUMBERS = re.compile(r"cycles|energy|_pj|latency|power|watts|joules|seconds|macs|bytes|speedup|density")
# what Python and its libraries print for programmers
ODD = re.compile(r"Traceback|\s|(?!simkit: error:|left out:).*\w(Warning|Exception): |.* at 0x[0-9a-f]{6}")
BAR = re.compile(r"\r\w+: [^\r\n]*(\n(?=\Z|[^\r]))?")
# a quoted value, an option, or a file
CULPRIT = re.compile(r"'[^']*'|--\w|\w\.\w")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SURVEY = os.environ.get("ZEROSKIP_FUZZ_SURVEY")


class Fault(AssertionError):
    """An example after which something does not hold."""


class OutOfTime(BaseException):
    """The example's processor time is used up; no ``except Exception`` takes it for an error of a file."""


@dataclass
class Ran:
    """One call of the command."""

    words: list[str]
    code: int | None
    out: str
    err: str
    error: BaseException | None


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Bound processor time, wall time and memory of what runs inside; a process of 2 GiB more cannot be had."""

    def stop(*_: Any) -> None:
        raise OutOfTime(f"more than {SECONDS} s of processor time, or {WALL_SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    handlers = [signal.signal(one, stop) for one in (signal.SIGPROF, signal.SIGALRM)]
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 2)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS, 2)
    try:
        yield
    finally:
        for one in (signal.SIGPROF, signal.SIGALRM):  # first, so that none comes in between
            signal.signal(one, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in zip((signal.SIGPROF, signal.SIGALRM), handlers, strict=True):
            signal.signal(one, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """Make a folder for one example and work in it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        with contextlib.chdir(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(kind: str, about: str, error: BaseException | None = None) -> None:
    """Raise a fault; in a survey write it down and go on."""
    at = ""
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if re.search(r"/(simkit|traces|hwmodels)/", f.filename)]
        at = " > ".join(f"{Path(f.filename).name}:{f.lineno}" for f in ours[-2:])
        kind = f"{kind}: {type(error).__name__}"
        about = f"{about}\n{error}"
    if SURVEY:
        with open(SURVEY, "a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps({"kind": kind, "at": at, "about": about[:1500]}) + "\n")
        return
    raise Fault(f"{kind} {at}\n{about}") from error


def call(about: str, function: Callable[[], Any], names: Sequence[str] = ()) -> Any:
    """Call the API within limits; an error of ours gives None, any other is a fault.

    Parameters
    ----------
    about : str
        What was given, for the report.
    function : callable
        Takes nothing.
    names : sequence of str
        One of these must be in the error's text, so that it says what is at fault.
    """
    try:
        # pytest makes errors of warnings; users see them as lines that say nothing to them
        with limits(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("error")
            return function()
    except (Exception, OutOfTime) as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            report("traceback", about, error)
        elif code not in CODES or not str(error).strip():
            report("no message", about, error)
        elif not CULPRIT.search(str(error)) and not any(name in str(error) for name in names):
            report("no culprit", about, error)
    return None


def run_command(*words: str) -> Ran:
    """Run ``simkit WORDS`` in this process, through its own boundary for errors."""
    code: int | None = 0
    caught: BaseException | None = None
    given, sys.argv = sys.argv, ["simkit", *words]
    # as a terminal or a pipe has them
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", newline="\n", write_through=True)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limits(), warnings.catch_warnings():
            warnings.simplefilter("error")
            cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) or ended.code is None else 1
        code = code or 0
    except (Exception, OutOfTime) as error:
        code, caught = None, error
    finally:
        sys.argv = given
    said, told = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return Ran(list(words), code, said, BAR.sub("", told), caught)


def check_command(folder: Path, *words: str) -> Ran:
    """Run a command in a folder of its own and check everything that must hold after it."""
    before = _files(folder)
    ran = run_command(*words)
    made = sorted(_files(folder) - before)
    event(f"{' '.join(words[: 1 + (words[:1] in (('trace',), ('measure',)))])}: exit {ran.code}")
    about = f"simkit {ran.words!r}\nexit {ran.code}, made {made}\n{ran.out[-300:]}\n{ran.err[-700:]}"
    if ran.error is not None:
        report("traceback", about, ran.error)
        return ran
    if ran.code not in CODES:
        report("exit code", about)
    _check_lines(ran, about)
    if ran.code == 0 and not ran.out.strip() and not made:
        report("nothing done", about)
    _check_files(folder, made, ran, about)
    before_it = [word for word, after in zip(ran.words, ran.words[1:], strict=False) if after == "--json"]
    # after an option that takes a value it is that value
    if ran.code == 0 and any(not word.startswith("-") or word in FLAGS for word in before_it):
        _check_json(ran, about)
    return ran


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _check_lines(ran: Ran, about: str) -> None:
    """An error is said in plain lines that name something of what was given."""
    lines = [line for line in ran.err.splitlines() if line.strip()]
    odd = [] if not ran.words else [line for line in lines if ODD.match(line)]
    if odd:
        report("line that is not plain", f"{odd[0]!r}\n{about}")
    if CONTROL.search(ran.err.replace("\r\n", "\n")):
        report("control characters", f"{ran.err!r}\n{about}")
    if ran.code in (None, 0, 1) or not ran.words:
        return
    told = " ".join(line for line in lines if line.startswith(("simkit: error:", "Error:")))
    if not told.strip():
        report("no message", about)
    given = {part for word in ran.words for part in (word, Path(word).name) if part.strip()}
    if "Missing command" not in told and not CULPRIT.search(told) and not any(name in told for name in given):
        report("no culprit", about)


def _check_files(folder: Path, made: list[str], ran: Ran, about: str) -> None:
    """What was written is whole; a command that failed has written nothing, but for what resuming needs."""
    partial = [name for name in made if name.endswith((".part", ".tmp")) or "/.tmp" in name]
    if partial:
        report("half-written", f"{partial}\n{about}")
    if ran.code not in (0, 1) and made and not any(word in RESUMABLE for word in ran.words):
        report("half-written", f"left by a command that failed\n{about}")
        return
    stores = ["."] if "zarr.json" in made else [name[:-10] for name in made if name.endswith("/zarr.json")]
    stores = [name for name in stores if not any(name.startswith(f"{other}/") for other in stores)]
    inside = tuple(f"{name}/" if name != "." else "" for name in stores)
    for name in [*stores, *(name for name in made if not name.startswith(inside))]:
        try:
            _open(folder / name)
        except Exception as error:
            report("half-written", f"{name} cannot be read\n{about}", error)


def _open(path: Path) -> None:
    import numpy as np
    import pandas as pd

    ending = path.suffix
    if path.is_dir():
        sk.load_trace(path).verify()
    elif ending == ".parquet":
        check_frame(pd.read_parquet(path))
    elif ending == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    elif ending == ".svg":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")
    elif ending == ".pdf":
        assert path.read_bytes().rstrip().endswith(b"%%EOF")
    elif ending == ".png":
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    elif ending == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif ending in (".npz", ".npy"):
        np.load(path)


def _check_json(ran: Ran, about: str) -> None:
    """JSON that any reader takes, whose cycles, joules and watts are numbers of at least zero."""
    try:
        held = json.loads(ran.out)
    except ValueError as error:
        try:
            held = [json.loads(line) for line in ran.out.splitlines() if line.strip()]
        except ValueError:
            report("not JSON", about, error)
            return
    for key, value in _numbers(held):
        # null and NaN say that a figure cannot be derived; never one of cycles or energies
        undefined = math.isnan(value) and not re.fullmatch(r"cycles|energy_pj|latency_s|count|macs", key)
        if not undefined and (not math.isfinite(value) or value < 0):
            report("impossible number", f"{key} = {value}\n{about}")
            return


def _numbers(held: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(held, dict):
        for name, value in held.items():
            yield from _numbers(value, str(name))
    elif isinstance(held, list):
        for value in held:
            yield from _numbers(value, key)
    elif isinstance(held, float | int) and not isinstance(held, bool) and NUMBERS.search(key):
        yield key, held


def check_frame(frame: Any) -> None:
    """Cycles, energies and latencies of rows are finite and not negative."""
    for name in ("cycles", "dense_cycles", "count", "energy_pj", "latency_s", "energy_low_pj", "energy_high_pj"):
        if name in frame and len(frame):
            # rows of failed points have none
            values = frame[name].dropna() if "reason" in frame else frame[name]
            assert ((values >= 0) & (values < math.inf)).all(), f"{name} is not a number of at least 0"


def check_result(about: str, result: Any) -> None:
    """Check a result that a call returned, and what is derived from it."""
    try:
        check_frame(result.frame)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = result.summary()
        for name in ("energy_pj", "cycles", "power_w"):
            bad = table[name][(table[name] < 0) | (table[name] == math.inf)]
            assert not len(bad), f"{name} = {list(bad)}"
    except Exception as error:
        report("impossible number", about, error)


def clock() -> float:
    """Processor time of this process, s."""
    return time.process_time()


assert threading.current_thread() is threading.main_thread()
