"""Public docstrings: complete in numpydoc's sections, and their examples run."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hwmodels
import simkit
import simkit.plots
import traces

pytestmark = pytest.mark.slow

TRACE = Path(__file__).parents[1] / "data" / "minilm_relu_small.zarr"
PACKAGES = {"simkit": simkit, "simkit.plots": simkit.plots, "hwmodels": hwmodels, "traces": traces}
GLOBALS = {"sk": simkit, "hwmodels": hwmodels, "traces": traces, "np": np, "pd": pd}
# examples that cannot run here: a model is downloaded or trained, a device measured, or an optional package needed
SKIPPED = {
    "simkit.TuningCost",
    "simkit.compare",
    "simkit.measure",
    "simkit.record",
    "simkit.tune",
    "simkit.tuning_cost",
    "traces.TuneResult",
    "traces.load_model",
    "traces.tuning_step",
}
HEADING = re.compile(r"(?m)^([A-Z][A-Za-z ]+)\n-+$")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public() -> Iterator[tuple[str, Any]]:
    """Yield every public class and function once, by its first name."""
    seen: set[int] = set()
    for package, module in PACKAGES.items():
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and id(value) not in seen:
                seen.add(id(value))
                yield f"{package}.{name}", value


PUBLIC = dict(public())


def is_error(value: Any) -> bool:
    """Whether a class is an exception, which needs no example."""
    return isinstance(value, type) and issubclass(value, Exception)


def sections(value: Any) -> dict[str, str]:
    """Text of each section by heading; the summary under an empty name."""
    parts = HEADING.split(inspect.getdoc(value) or "")
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def documented(text: str) -> set[str]:
    """Names that a Parameters section describes."""
    heads = re.findall(r"(?m)^([*\w][^:\n]*)(?: :.*)?$", text)
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


def raised(value: Any) -> set[str]:
    """Names of the exception classes that a function's own body raises; what a helper makes is not seen."""
    tree = ast.parse(dedent(inspect.getsource(inspect.unwrap(value))))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    names = {call.func.id for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
    return {name for name in names if name[0].isupper()}


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if not is_error(value)])
def test_a_public_docstring_has_its_sections(name: str) -> None:
    value = PUBLIC[name]
    found = sections(value)
    assert found[""].strip(), "no summary"
    assert found[""].split("\n\n")[0].strip().endswith("."), "the summary is no sentence"
    assert "Examples" in found
    if isinstance(value, type):
        fields = {n for n in inspect.signature(value).parameters if not n.startswith("_")} - {"args", "kwargs"}
    else:
        signature = inspect.signature(value)
        fields = set(signature.parameters)
        assert ("Returns" in found) == (signature.return_annotation not in ("None", "Iterator[None]"))
        assert raised(value) <= set(re.findall(r"(?m)^(\w+)$", found.get("Raises", "")))
    if fields:
        assert documented(found.get("Parameters", "")) >= fields


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder of the examples, with the small trace in it."""
    (tmp_path / TRACE.name).symlink_to(TRACE, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", [*PACKAGES, *PUBLIC])
def test_the_examples_of_a_docstring_run(name: str, folder: Path) -> None:
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    value = PUBLIC.get(name, PACKAGES.get(name))
    finder = doctest.DocTestFinder(recurse=isinstance(value, type))
    tests = [test for test in finder.find(value, name, module=False, globs=dict(GLOBALS)) if test.examples]
    if name in PUBLIC and not is_error(value):
        skipped = all(one.options.get(doctest.SKIP) for test in tests for one in test.examples)
        assert skipped == (name in SKIPPED)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    plt.close("all")
    assert not runner.failures, "".join(report)


def test_the_page_of_the_interface_lists_every_public_name_once() -> None:
    docs = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("interface", docs / "interface.py")
    assert spec is not None
    assert spec.loader is not None
    interface = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(interface)
    listed: list[Any] = []
    for block in re.findall(r"currentmodule:: (.*?)```", interface.api(), re.DOTALL):
        package, *lines = block.splitlines()
        listed += [getattr(PACKAGES[package], line.strip()) for line in lines if re.fullmatch(r"   [A-Za-z_]+", line)]
    assert len(listed) == len({id(value) for value in listed})
    missing = {name for name, value in PUBLIC.items() if value not in listed}
    assert not missing
