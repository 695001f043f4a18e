"""Nothing is left out in silence: what a design ignores or lacks is said, and specs without bound end in one line."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

import simkit as sk
from simkit import cli
from simkit.engine.replay import warn_left_out
from simkit.explore.expression import Expression
from simkit.explore.spec import Range, SweepSpec, load_spec
from simkit.explore.sweep import points

TRACE = Path("tests/data/minilm_relu_small.zarr")


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["simkit", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_weights_that_a_design_ignores_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "cnvlutin: weights 'random:0.5' change nothing, the design is one-sided (activation, output)"
    code, out, err = run(
        monkeypatch, capsys, "replay", TRACE, "-a", "cnvlutin", "-a", "eie", "--op", "down", "--weights", "random:0.5"
    )
    assert code == 0
    assert said in err
    assert f"note: {said}" in out
    assert "eie: weights" not in out + err


@pytest.mark.parametrize("weights", ["recorded", "dense"])
def test_nothing_is_said_where_nothing_is_ignored(weights: str, caplog: pytest.LogCaptureFixture) -> None:
    result = sk.replay(sk.load_trace(TRACE), ["cnvlutin"], ops=["down"], weights=weights)
    assert [facts["notes"] for facts in result.meta["runs"].values()] == [[]]
    assert not caplog.records


def test_vector_ops_that_are_left_out_are_said(tmp_path: Path) -> None:
    text = sk.arch("cnvlutin").model_dump(mode="json") | {"vector_lanes": None}
    bare = type(sk.arch("cnvlutin")).model_validate(text | {"name": "bare"})
    trace = sk.load_trace(TRACE)
    result = sk.replay(trace, [bare, sk.arch("cnvlutin")])
    result.save(tmp_path / "r.parquet")
    notes = [facts["notes"] for facts in sk.load_result(tmp_path / "r.parquet").meta["runs"].values()]
    assert [len(one) for one in notes] == [1, 0]
    assert notes[0][0].startswith("bare: states no vector_lanes, so all vector ops (")
    # where no vector op is asked for, none is left out
    only = sk.replay(trace, bare, ops=["down"])
    assert [facts["notes"] for facts in only.meta["runs"].values()] == [[]]


def test_a_sweep_says_it_in_its_table_and_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        logging.getLogger(warn_left_out.__module__), "warning", lambda form, *args: said.append(form % args)
    )
    result = sk.sweep(
        [TRACE],
        ["cnvlutin", "eie"],
        ops=["down"],
        weights=["random:0.5"],
        fields={"clock": ["500 MHz", "1 GHz"]},
        out=tmp_path,
        progress=False,
    )
    table = points(result.meta)
    told = table.set_index("arch")["notes"]
    assert told["eie"].eq("").all()
    assert told["cnvlutin"].str.contains("change nothing").all()
    assert said == [told["cnvlutin"].iloc[0]]


def test_sidedness_is_listed_and_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(monkeypatch, capsys, "ls", "archs", "--json")
    sides = {row["name"]: row["sides"] for row in json.loads(out)}
    assert sides["sparten"] == "two-sided (activation, weight, output)"
    _, out, _ = run(monkeypatch, capsys, "show", "arch", "eyeriss_v2_pe")
    assert "two-sided (activation, weight)" in out
    assert "none stated: vector ops" in out
    _, out, _ = run(monkeypatch, capsys, "show", "arch", "eyeriss_v2_pe", "--json")
    assert json.loads(out)["vector_lanes"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("empty_brick_cycles=tru", "must be true or false"),
        ("clock=700.0", "'700.0' is not a quantity of clock; write e.g. \"1 GHz\""),
        ("clock=700", "700 has no unit"),
        ("memory.bandwidth=1e20", "is not a quantity of bandwidth"),
        ("clock=-1 GHz", "must be from 1000"),
        ("clock=9**9**9 Hz", "is not a quantity of clock"),
        ("memory.weight_buffer=64 KB", "did you mean '64 kB' or '64 KiB'?"),
        ("lanes=" + "9" * 5000, "must be at most 1,048,576"),
        ("lanes=16.5", "must be a whole number"),
    ],
)
def test_set_is_checked_when_set(
    change: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, "replay", TRACE, "-a", "cnvlutin", "--set", change)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_set_false_is_false(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def cycles(word: str) -> int:
        args = ("-a", "eie", "--op", "down", "--weights", "dense", "--set", f"bias={word}", "--json", "-q")
        _, out, _ = run(monkeypatch, capsys, "replay", TRACE, *args)
        return sum(row["cycles"] for row in json.loads(out))

    arch = sk.arch("eie", bias=False)
    plain = sk.replay(sk.load_trace(TRACE), arch, ops=["down"], weights="dense").ops["cycles"].sum()
    assert cycles("false") == plain < cycles("true")


def test_all_faults_of_a_spec_are_printed_one_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "traces: []\n"
        "archs: [{nmae: cnvlutin}]\n"
        "feilds: {clock: 1 GHz}\n"
        "fields: {lanes: {from: 1, to: 9, step: 0}}\n"
        "weights: [1]\n"
    )
    code, _, err = run(monkeypatch, capsys, "sweep", spec)
    assert code == 2
    lines = [line.removeprefix(f"simkit: error: {spec}:") for line in err.splitlines()]
    assert [line.partition(":")[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert "an empty list" in lines[0]
    assert "unknown field; did you mean 'name'" in lines[1]
    assert "unknown field; did you mean 'fields'" in lines[2]
    assert "step 0 must be above 0" in lines[3]


@pytest.mark.parametrize(
    "text",
    [
        "'a'*99999999999 == 'b'",
        "[1]*10**10 == 1",
        "((10**60)**60)**60 > 1",
        "2**-1**64**64 > 1",
        "10**64.0**64 > 1",
        "max([]) > 1",
        "min('a', 1) > 1",
        "'%1000000000d' % 5 == 'x'",
        "round(7, -1000000000) > 1",
        "round(7.5, 10**19) > 1",
        "(-8)**0.5 == 1",
        "1 % 0 > 1",
        "1e308 * 10 ** 60 // 1 > 1",
        "-" * 5000 + "1 > 0",
        "(" * 400 + "1" + ")" * 400,
        "-" * 900 + "1 > 0",
        "not " * 240 + "1",
        "9" * 900 + " * " + "9" * 90 + " > 1",
        "a" + ".b" * 300,
    ],
)
def test_expressions_without_bound_end_quickly(text: str) -> None:
    start = time.monotonic()
    told = ""
    try:
        Expression(text).value(lambda name: 1)
    except sk.InputError as error:
        told = str(error)
    assert "\n" not in told
    assert len(told) < 1_300
    assert time.monotonic() - start < 2


def test_expressions_of_honest_specs_work() -> None:
    values = {"lanes": 16, "tiles": 4, "clock": 1e9, "arch": "eie"}
    for text, found in (
        ("lanes * tiles <= 64 and clock > '0.5 GHz'", True),
        ("2 ** 10 == 1024 and round(lanes / 3, 2) == 5.33", True),
        ("arch in ['eie', 'scnn'] and max(lanes, tiles) % 3 == 1", True),
        ("lanes // tiles - 4 ** 0.5", 2.0),
    ):
        assert Expression(text).value(values.__getitem__) == found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"from": 1, "to": 10**12, "step": 1}, "more than 1,000,000 values"),
        ({"from": "1 Hz", "to": "1 THz", "step": "1 Hz"}, "more than 1,000,000 values"),
        ({"from": 1, "to": 9, "step": -1}, "must be above 0"),
        ({"from": 1, "to": 9, "step": float("nan")}, "must be above 0"),
        ({"from": 1, "to": float("inf"), "points": 3}, "must be finite"),
        ({"from": 1, "to": 9, "points": 10**9}, "less than or equal to 1000000"),
    ],
)
def test_ranges_have_a_bound(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Range.model_validate(given)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("traces: [x]\narchs: &a [*a]\n", "alias 'a' contains itself"),
        ("traces: [x]\narchs: " + "[" * 3000 + "]" * 3000, "nested more than 40 levels deep"),
    ],
)
def test_specs_without_bound_end_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(sk.InputError, match=says):
        load_spec(tmp_path / "s.yaml", SweepSpec)


def test_an_arch_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(sk.InputError, match=r"a\.yaml: byte 9 is not UTF-8"):
        sk.arch(tmp_path / "a.yaml")
