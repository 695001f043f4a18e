"""Specs, their expressions, and the points they come to."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hwmodels
import simkit as sk
from hwmodels.units import parse
from simkit.errors import InputError
from simkit.explore.expression import Expression
from simkit.explore.grid import make_plan, plan_of
from simkit.explore.spec import Range, SweepSpec, load_spec


def spec_file(folder: Path, text: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- ranges


@given(st.integers(1, 10**6), st.integers(2, 50), st.floats(1.5, 1e6))
def test_log_range_has_constant_ratio_and_both_ends(first: int, points: int, ratio: float) -> None:
    values = Range(first=float(first), last=first * ratio, points=points, scale="log").values()
    assert len(values) == points
    assert values[0] == pytest.approx(first, rel=1e-3)
    assert values[-1] == pytest.approx(first * ratio, rel=1e-3)
    step = math.log(ratio) / (points - 1)
    assert [math.log(b / a) for a, b in pairwise(values)] == pytest.approx([step] * (points - 1), abs=2e-3)


def test_ranges_keep_units_whole_numbers_and_ends() -> None:
    assert Range(first="10 GB/s", last="1 TB/s", points=3, scale="log").values() == ["10 GB/s", "100 GB/s", "1000 GB/s"]
    assert Range(first=4, last=64, points=5, scale="log").values() == [4, 8, 16, 32, 64]
    assert Range(first=1, last=2, points=5).values() == [1, 1.25, 1.5, 1.75, 2]
    assert Range(first="0.5 GHz", last="0.8 GHz", step="100 MHz").values() == [
        "0.5 GHz",
        "0.6 GHz",
        "0.7 GHz",
        "0.8 GHz",
    ]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("clokc: 3", r"s.yaml:3: clokc: unknown field"),
        ("feilds: {lanes: [1]}", r"did you mean 'fields'"),
        ("fields: {clock: []}", r"s.yaml:3: fields.clock: an empty list; give at least one value"),
        ("fields: {clock: {from: 1 GHz, too: 3}}", "to: field is missing"),
        ("fields: {clock: {from: 1 GHz, to: 2 GHz, pionts: 3}}", "unknown field 'pionts'; did you mean 'points'"),
        ("fields: {clock: {from: 1 GHz, to: 2 GHz}}", "give either points or step"),
        ("fields: {clock: {from: 1 GHz, to: 2, points: 3}}", "2 has no unit; write it as text, e.g. '2 GHz'"),
        ("fields: {clock: {from: 2 GHz, to: 1 GHz, points: 3}}", r"must be below 'to'"),
        ("fields: {clock: {from: 0, to: 1, points: 3, scale: log}}", "must start above 0"),
        ("tables: []", "tables: an empty list"),
        ("archs: [dadiannao]", 'found duplicate key "archs"'),
    ],
)
def test_bad_specs_name_line_and_field(tmp_path: Path, line: str, wanted: str) -> None:
    with pytest.raises(hwmodels.InputError, match=wanted.replace("(", r"\(")):
        load_spec(spec_file(tmp_path, f"traces: t.zarr\narchs: [cnvlutin]\n{line}\n"))


def test_missing_spec(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the spec"):
        load_spec(tmp_path / "none.yaml")


# --- expressions


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lanes * tiles <= 64 and lanes != 3", True),
        ("lanes // 3 + 2 ** 3 - -1", 10),
        ('memory.bandwidth < "100 GB/s"', True),
        ('memory.bandwidth < "1 GB/s"', False),
        ('clock == "1 GHz"', True),
        ("4 <= lanes <= 8 or not lanes", True),
        ("arch in ['cnvlutin', 'eie']", True),
        ("max(lanes, tiles) % 3", 1),
    ],
)
def test_expressions(text: str, value: Any) -> None:
    names = {"lanes": 4, "tiles": 16, "memory.bandwidth": 2.5e10, "clock": 1e9, "arch": "eie"}
    assert Expression(text).value(names.__getitem__) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "lanes.__class__()",
        "[x for x in y]",
        "lambda: 1",
        "x[0]",
        "a if b else c",
        "(1).real",
        "a b",
        "",
    ],
)
def test_expressions_are_not_python(text: str) -> None:
    with pytest.raises(InputError, match=r"not an expression|not allowed|not a field name"):
        Expression(text)


@pytest.mark.parametrize("text", ["lanes / 0", "9 ** 9999", "lanes < 'many'"])
def test_expressions_that_cannot_be_computed(text: str) -> None:
    with pytest.raises(InputError, match="cannot be computed"):
        Expression(text).value({"lanes": 4}.__getitem__)


def test_a_clock_is_no_bandwidth() -> None:
    with pytest.raises(hwmodels.InputError, match="not a bandwidth"):
        parse("606 MHz", "bandwidth")
    with pytest.raises(hwmodels.InputError, match="not a clock"):
        parse("25 GB/s", "clock")


# --- plans


def test_plan_crosses_everything(plain_trace_path: Path) -> None:
    plan = plan_of(
        SweepSpec.model_validate(
            {
                "traces": str(plain_trace_path),
                "archs": ["cnvlutin", {"name": "systolic_32x32", "fields": {"rows": [8, 16]}}],
                "tables": ["default_45nm", "horowitz_45nm"],
                "weights": ["recorded", "random:0.5"],
                "fields": {"clock": ["500 MHz", "1 GHz", "2 GHz"]},
                "together": [
                    {"memory.burst": "32 byte", "memory.bandwidth": "10 GB/s"},
                    {"memory.burst": "64 byte", "memory.bandwidth": "20 GB/s"},
                ],
            }
        )
    )
    points = list(plan.points())
    assert len(points) == len(set(points)) == plan.grid_size() == plan.count() == (3 * 2 + 3 * 2 * 2) * 2 * 2
    assert len({plan.run(point) for point in points}) == len(points)
    pairs = {(dict(p.fields)["memory.burst"], dict(p.fields)["memory.bandwidth"]) for p in points}
    assert pairs == {("32 byte", "10 GB/s"), ("64 byte", "20 GB/s")}
    assert {dict(p.fields)["rows"] for p in points if p.arch == 1} == {8, 16}


def test_constraints_choose_points_by_plain_values(plain_trace_path: Path) -> None:
    fields = {"lanes": [4, 8, 16], "memory.bandwidth": ["10 GB/s", "0.1 TB/s"]}
    rules = ["lanes * filters <= 128", 'memory.bandwidth > "50 GB/s" or lanes == 4']
    plan = make_plan(
        [str(plain_trace_path)], [("cnvlutin", {})], tables=["default_45nm"], fields=fields, constraints=rules
    )
    chosen = [dict(point.fields) for point in plan.points()]
    assert [(c["lanes"], c["memory.bandwidth"]) for c in chosen] == [(4, "10 GB/s"), (4, "0.1 TB/s"), (8, "0.1 TB/s")]
    assert plan.count() == 3
    for point in plan.points():
        assert plan.arch(point).param("lanes") == dict(point.fields)["lanes"]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"fields": {"lanez": [1]}}, "arch 'cnvlutin' has no field 'lanez'; did you mean 'lanes'"),
        ({"fields": {"clock": ["3 GB"]}}, "is not a clock"),
        ({"fields": {"clock": [3]}}, "has no unit"),
        ({"fields": {"lanes": []}}, "fields.lanes: an empty list"),
        ({"constraints": ["lanez > 3"]}, "unknown name 'lanez'; did you mean 'lanes'"),
        ({"constraints": ["lanes > 99"]}, "no point is left: the constraints rule out all 1"),
        ({"table": "default_45"}, "did you mean 'default_45nm'"),
        ({"weights": "half"}, "weights 'half' is not known"),
        ({"ops": ["dwon"]}, "has no op 'dwon'; did you mean 'down'"),
        ({"archs": []}, "no arch is given; give at least one"),
        ({"archs": ["cnvlutine"]}, "did you mean 'cnvlutin'"),
    ],
)
def test_bad_plans_before_anything_is_computed(
    plain_trace_path: Path, tmp_path: Path, change: dict[str, Any], wanted: str
) -> None:
    given = {"traces": [str(plain_trace_path)], "archs": ["cnvlutin"], "out": tmp_path / "o", "progress": False}
    with pytest.raises(ValueError, match=wanted):
        sk.sweep(**{**given, **change})
    assert not (tmp_path / "o").exists()


def test_wildcard_that_matches_nothing(tmp_path: Path) -> None:
    spec = SweepSpec(traces=[str(tmp_path / "*.zarr")], archs=["cnvlutin"])
    with pytest.raises(InputError, match="nothing matches"):
        plan_of(spec)


def test_the_specs_of_the_how_to_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simkit.explore.search import SearchSpec

    root = Path(__file__).resolve().parents[4]
    monkeypatch.chdir(root)
    page = (root / "docs" / "howto" / "sweep.md").read_text(encoding="utf-8")
    specs = dict(re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", page, re.DOTALL))
    for name, text in specs.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    swept = plan_of(load_spec(tmp_path / "sweep.yaml"))
    # clocks x bandwidths x buffers, for Cnvlutin and four arrays; at 500 MHz one bandwidth is too high
    assert swept.count() == (1 + 4) * 2 * (2 * 5 - 1)
    search = load_spec(tmp_path / "search.yaml", SearchSpec)
    assert search.objectives == ["latency_s", "energy_per_token_pj"]
    assert plan_of(search).count() == 40
