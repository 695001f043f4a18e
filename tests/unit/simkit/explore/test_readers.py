"""Readers of specs, results and measurements: what they read is right, said on stderr, or refused in one line."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simkit.errors import InputError
from simkit.explore.grid import make_plan
from simkit.explore.spec import Range, SweepSpec


def range_of(**given: Any) -> Range:
    return Range.model_validate({name.rstrip("_"): value for name, value in given.items()})


# --- ranges of a spec


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"from": 0, "to": 1, "points": 11}, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ({"from": 0, "to": 1, "step": 0.1}, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ({"from": 0, "to": 1, "step": 0.25}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 1, "to": 2, "points": 5}, [1, 1.25, 1.5, 1.75, 2]),
        ({"from": 16, "to": 64, "points": 4}, [16, 32, 48, 64]),
        ({"from": 1, "to": 10, "step": 4}, [1, 5, 9]),
        ({"from": 10000.0, "to": 10003.0, "step": 1}, [10000, 10001, 10002, 10003]),
        ({"from": 10000.5, "to": 10002.5, "points": 3}, [10000.5, 10001.5, 10002.5]),
        ({"from": 1, "to": 100, "points": 5, "scale": "log"}, [1, 3.162, 10, 31.62, 100]),
        ({"from": "1.23456 GHz", "to": "2.5 GHz", "points": 2}, ["1.23456 GHz", "2.5 GHz"]),
        ({"from": "0 GB/s", "to": "1 GB/s", "points": 4}, ["0 GB/s", "0.3333 GB/s", "0.6667 GB/s", "1 GB/s"]),
    ],
)
def test_a_range_has_the_values_that_it_names(given: dict[str, Any], wanted: list[Any]) -> None:
    values = Range.model_validate(given).values()
    assert values == wanted
    if all(isinstance(value, int) for value in wanted[1:-1]) and isinstance(given["from"], int):
        assert {type(value) for value in values} == {int}


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(2, 400))
def test_no_point_of_a_range_is_lost(first: int, width: int, points: int) -> None:
    values = Range(first=first, last=first + width, points=points).values()
    assert len(set(values)) == points
    assert (values[0], values[-1]) == (first, first + width)
    gaps = [float(b) - float(a) for a, b in pairwise(values)]
    assert gaps == pytest.approx([width / (points - 1)] * (points - 1), rel=3e-3)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"from": 0, "to": math.inf, "points": 3}, "must be finite"),
        ({"from": math.nan, "to": 1, "points": 3}, "must be finite"),
        ({"from": False, "to": 1, "points": 3}, "false is not a number"),
        ({"from": 0, "to": 1, "step": 0}, "step 0 must be above 0"),
        ({"from": 0, "to": 1, "step": math.nan}, "must be above 0"),
        ({"from": 0, "to": 1, "step": 1e-9}, "more than 1,000,000 values"),
        ([[1]], r"\[1\] is no value"),
        ([None], "None is no value"),
        ([{}], "{} is no value"),
    ],
)
def test_ranges_and_lists_that_have_no_values(given: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        SweepSpec.model_validate({"traces": ["t.zarr"], "archs": ["cnvlutin"], "fields": {"lanes": given}})


def planned(trace: Path, arch: str, **fields: Any) -> list[Any]:
    spec = SweepSpec.model_validate({"traces": [str(trace)], "archs": [arch], "fields": fields})
    plan = make_plan(spec.traces, [(arch, {})], tables=["default_45nm"], fields=spec.fields)
    return [point.fields[0][1] for point in plan.points()]


def test_fields_of_whole_numbers_take_rounded_ranges_that_lose_no_point(plain_trace_path: Path) -> None:
    log = {"from": 16, "to": 100, "points": 4, "scale": "log"}
    assert planned(plain_trace_path, "systolic_32x32", rows=log) == [16, 29, 54, 100]
    assert planned(plain_trace_path, "h100_sxm", skip_overhead={"from": 0, "to": 1, "points": 11})[1] == 0.1
    for field in ("rows", "bits.weight"):
        with pytest.raises(InputError, match=rf"fields.{field}: takes whole numbers, and of 9 values .* only 5"):
            planned(plain_trace_path, "systolic_32x32", **{field: {"from": 4, "to": 8, "points": 9}})
    with pytest.raises(InputError, match="takes whole numbers without unit"):
        planned(plain_trace_path, "systolic_32x32", rows={"from": "1 GHz", "to": "2 GHz", "points": 2})


def test_ranges_arrays_and_single_values_in_python(plain_trace_path: Path) -> None:
    def values(given: Any) -> list[Any]:
        plan = make_plan([str(plain_trace_path)], [("cnvlutin", {})], tables=["default_45nm"], fields=given)
        return [point.fields[0][1] for point in plan.points()]

    assert values({"lanes": {"from": 4, "to": 16, "points": 3, "scale": "log"}}) == [4, 8, 16]
    assert values({"lanes": np.array([4, 8])}) == [4, 8]
    assert values({"lanes": range(4, 6)}) == [4, 5]
    assert values({"clock": "1 GHz"}) == ["1 GHz"]


# --- paths of a spec


def test_a_path_that_exists_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def paths(*texts: str) -> list[str]:
        return SweepSpec(traces=list(texts), archs=["cnvlutin"]).trace_paths()

    for name in ("runs[1]/a.zarr", "runs[1]/b.zarr", "50% of *.zarr", "ünï cödé.zarr"):
        (tmp_path / name).mkdir(parents=True)
    assert paths("runs[1]/a.zarr") == ["runs[1]/a.zarr"]
    assert paths("runs[1]/*.zarr") == ["runs[1]/a.zarr", "runs[1]/b.zarr"]
    assert paths("50% of *.zarr", "ünï cödé.zarr") == ["50% of *.zarr", "ünï cödé.zarr"]
    assert paths("~/runs[1]/a.zarr") == [str(tmp_path / "runs[1]/a.zarr")]
    (tmp_path / "runs1").mkdir()
    (tmp_path / "runs1" / "a.zarr").mkdir()
    assert paths("runs[1]/a.zarr") == ["runs[1]/a.zarr"]
    assert paths("runs[12]/a.zarr") == ["runs1/a.zarr"]
    with pytest.raises(InputError, match=r"runs1/a.zarr as a wildcard and runs\[1\]/a.zarr as it is written"):
        paths("runs[1]/*.zarr")
    with pytest.raises(InputError, match="nothing matches"):
        paths("runs[3]/a.zarr")
