"""The constraints file against what wheels on PyPI require, as recorded: no network, and not what is installed here."""

from __future__ import annotations

import pytest
from pinned_requirements import PYTHONS, Record, Table, problems, read_pins, read_table, wanted


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
