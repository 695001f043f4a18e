"""One tree of errors: ``except sk.InputError`` catches bad input from every verb, whichever package finds it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hwmodels
import simkit as sk
import traces
from simkit import errors
from simkit.explore.search import SearchSpec, run_search
from simkit.explore.spec import load_spec

TRACE = Path("tests/data/minilm_relu_small.zarr")
BAD: dict[str, Callable[[Path], Any]] = {
    "arch": lambda tmp: sk.arch("cnvlutim"),
    "arch with a field": lambda tmp: sk.arch("cnvlutin", clock=7.0),
    "arch file": lambda tmp: sk.arch(written(tmp / "a.yaml", "name: [")),
    "variant": lambda tmp: sk.arch("cnvlutin").with_(lane=3),
    "load_trace": lambda tmp: sk.load_trace(tmp / "none.zarr"),
    "load_result": lambda tmp: sk.load_result(tmp / "none.parquet"),
    "replay on an unknown arch": lambda tmp: sk.replay(sk.load_trace(TRACE), "cnvlutim"),
    "replay of an unknown op": lambda tmp: sk.replay(sk.load_trace(TRACE), "cnvlutin", ops=["dwn"]),
    "replay without weight masks": lambda tmp: sk.replay(sk.load_trace(TRACE), "sparten"),
    "replay with an unknown table": lambda tmp: sk.replay(sk.load_trace(TRACE), "cnvlutin", table="x"),
    "sweep of an unknown trace": lambda tmp: sk.sweep([tmp / "none.zarr"], ["cnvlutin"]),
    "sweep of a field without unit": lambda tmp: sk.sweep([TRACE], ["cnvlutin"], fields={"clock": [7e8]}),
    "sweep of a constraint": lambda tmp: sk.sweep([TRACE], ["cnvlutin"], constraints=["'a' * 9 ** 9"]),
    "spec": lambda tmp: load_spec(written(tmp / "s.yaml", "traces: [x]\narch: cnvlutin\n")),
    "search": lambda tmp: run_search(
        SearchSpec(traces=[str(TRACE)], archs=["cnvlutim"], objectives=["cycles"], fields={"lanes": [4, 8]}), tmp
    ),
    "tune": lambda tmp: traces.tune(model="minilm-l6", data="vader-movie", tuning="lorra", out=tmp / "t"),
    "tune from a file": lambda tmp: traces.load_tuning(written(tmp / "t.yaml", "a: &a [*a]")),
    "record": lambda tmp: traces.record(model="minilm-l6", data="x", out=tmp / "t.zarr", adapter=tmp / "none"),
    "import": lambda tmp: traces.import_masks(written(tmp / "m.csv", "a,b\nx,y\n"), tmp / "t.zarr"),
}


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("verb", BAD)
def test_bad_input_of_every_verb_is_caught(verb: str, tmp_path: Path) -> None:
    with pytest.raises(sk.InputError) as caught:
        BAD[verb](tmp_path)
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, (sk.ZeroskipError, ValueError))
    assert str(caught.value)


def test_errors_stay_what_they_were_to_their_own_package() -> None:
    for own, shared in (
        (hwmodels.InputError, sk.InputError),
        (traces.InputError, sk.InputError),
        (traces.CorruptError, sk.CorruptError),
        (traces.FetchError, sk.UnavailableError),
        (traces.NumericError, errors.NumericError),
        (traces.StorageError, sk.StorageError),
    ):
        made = own("what is wrong")
        assert isinstance(made, own)
        assert isinstance(made, shared)
        assert isinstance(made, sk.ZeroskipError)
        assert made.exit_code == own.exit_code == shared.exit_code
        again = pickle.loads(pickle.dumps(made))
        assert (type(again), str(again)) == (type(made), "what is wrong")


@pytest.mark.parametrize("package", ["hwmodels", "traces"])
def test_packages_work_without_simkit(package: str) -> None:
    code = f"import sys, {package} as p; e = p.InputError('x'); print(type(e) is p.InputError, 'simkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"
