"""The constraints file against what wheels on PyPI require, as recorded: no network, and not what is installed here."""

from __future__ import annotations

import re

import pytest
from pinned_requirements import (
    PYTHONS,
    ROOT,
    Record,
    Table,
    asked_by_users,
    downloads,
    problems,
    read_pins,
    read_table,
    wanted,
)

CPU_TORCH_GB = 0.192  # torch-2.13.0+cpu, cp311, x86_64


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table()


def test_pins_satisfy_what_the_public_wheels_require(table: Table) -> None:
    assert set(table) == set(PYTHONS)
    assert problems(read_pins(), table, wanted()) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_a_pin_that_torch_does_not_take_is_found(table: Table, python: str) -> None:
    said = problems({**read_pins(), "triton": "3.9.0"}, table, wanted())
    assert f"Python {python}: torch 2.13.0 requires triton==3.7.1, but 3.9.0 is pinned" in said
    assert any(line.startswith(f"Python {python}: triton==3.9.0 is pinned, 3.7.1 recorded; run") for line in said)


def test_what_is_not_pinned_is_found(table: Table) -> None:
    pins = read_pins()
    for name in ("nvidia-cublas", "jupyterlab", "soupsieve"):
        del pins[name]
    said = problems(pins, table, wanted())
    assert "Python 3.12: cuda-toolkit 13.0.3.0 requires nvidia-cublas, which is not pinned" in said
    assert "Python 3.11: pyproject.toml requires jupyterlab, which is not pinned" in said
    assert "Python 3.11: beautifulsoup4 4.15.0 requires soupsieve, which is not pinned" in said


@pytest.mark.parametrize("python", PYTHONS)
def test_readme_says_what_an_install_downloads(table: Table, python: str) -> None:
    (extras,) = re.findall(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    sizes = downloads(python, table, asked_by_users(extras.split(",")))
    with_torch = [name for name in sizes if name in ("torch", "triton") or name.startswith(("cuda-", "nvidia-"))]
    every, cuda = sum(sizes.values()) / 1e9, sum(sizes[name] for name in with_torch) / 1e9
    readme = (ROOT / "README.md").read_text()
    assert f"of the {every:.1f} GB that `make install` downloads, {cuda:.1f} GB are torch" in readme
    assert f"{every - cuda + CPU_TORCH_GB:.1f} GB in all" in readme


def one_package(**changed: object) -> Table:
    return {"3.11": {"a": Record("1.0", ">=3.11", 1, [], [])._replace(**changed)}}  # type: ignore[arg-type]


def test_extras_pythons_and_leftovers() -> None:
    assert problems({"a": "1.0"}, one_package(), ["a"]) == []
    assert problems({"a": "1.0"}, one_package(python=">=3.11.5"), ["a"]) == [
        "Python 3.11: a 1.0 requires Python >=3.11.5"
    ]
    assert problems({"a": "1.0", "b": "2"}, one_package(), ["a"]) == [
        "Python 3.11: b==2 is pinned, no version recorded; run python tests/pins/refresh.py",
        "b is pinned, but nothing requires it",
    ]
    (said,) = problems({"a": "1.0"}, one_package(), ["a[fast]"])
    assert said.startswith("Python 3.11: a[fast] is not in the recorded table")
    fast = one_package(requires=["b>=2; extra == 'fast'", "c; sys_platform == 'win32'"], extras=["fast"])
    assert problems({"a": "1.0"}, fast, ["a"]) == []
    assert problems({"a": "1.0"}, fast, ["a[fast]"]) == ["Python 3.11: a 1.0 requires b, which is not pinned"]
