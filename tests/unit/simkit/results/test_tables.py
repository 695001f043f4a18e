"""Tables: digits by standard error, LaTeX that compiles, Markdown that keeps its columns."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_result import ARCHS, plain_result

import simkit as sk
from simkit.errors import InputError
from simkit.results.columns import Column
from simkit.results.typeset import latex, number


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ((0.84533, 0.0091), "0.845 ± 0.009"),
        ((0.84533, 0.0119), "0.845 ± 0.012"),
        ((12345.0, 200.0), "12,300 ± 200"),
        ((9.996,), "10.0"),
        ((0.000123456,), "0.000123"),
        ((1234567.0,), "1,230,000"),
        ((-1.5,), "−1.50"),
        ((0.0,), "0.00"),
        ((math.nan,), "–"),
        ((math.inf,), "∞"),
        ((6.1, math.nan, 4.9, 8.02), "6.10 (4.90–8.02)"),
        ((6.1, math.nan, 6.1, 6.1), "6.10"),
    ],
)
def test_number(args: tuple[float, ...], wanted: str) -> None:
    assert number(*args) == wanted


@given(st.floats(1e-9, 1e9), st.floats(1e-3, 0.5))
def test_value_and_error_end_at_the_same_place(value: float, relative: float) -> None:
    text = number(value, value * relative)
    shown, error = (part.replace(",", "") for part in text.split(" ± "))
    places = [len(part.partition(".")[2]) for part in (shown, error)]
    assert places[0] == places[1]
    assert float(error) == pytest.approx(value * relative, rel=0.5)
    assert abs(float(shown) - value) <= float(error)


def test_table_of_a_result() -> None:
    text = sk.table(plain_result()).text
    assert list(text.columns) == [
        "tuning",
        "arch",
        "accuracy",
        "density",
        "cycles (10⁶)",
        "speed-up (×)",
        "energy (nJ/token)",
        "power (W)",
    ]
    row = text[(text["tuning"] == "relu") & (text["arch"] == "cnvlutin")].iloc[0]
    assert row["accuracy"] == "0.800 ± 0.010"
    assert row["speed-up (×)"] == "5.00"
    assert row["energy (nJ/token)"] == "5.00 (2.50–10.00)"
    assert len(text) == 2 * len(ARCHS)


def test_latex_is_booktabs_with_everything_escaped() -> None:
    frame = pd.DataFrame({"na_me": ["50 % & $x$ {a}\\b^~#", "µ ± × ² <>"], "v": [1.0, 22.0]})
    code = sk.table(frame, {"na_me": Column("na_me"), "v": Column("v", "mm²")}).to_latex("A_b", "tab:x")
    assert code.startswith("\\begin{table}[t]\n\\centering\n\\caption{A\\_b}\n\\label{tab:x}")
    assert all(rule in code for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\begin{tabular}{lr}"))
    assert "50 \\% \\& \\$x\\$ \\{a\\}\\textbackslash{}b\\textasciicircum{}\\textasciitilde{}\\#" in code
    assert "\\textmu{} $\\pm$ $\\times$ \\textsuperscript{2} \\textless{}\\textgreater{}" in code
    assert code.isascii()
    bare = sk.table(frame).to_latex() if "tuning" in frame else sk.table(frame, ["v"]).to_latex()
    assert bare.startswith("\\begin{tabular}{r}")


def test_all_signs_of_the_default_table_have_a_command() -> None:
    code = sk.table(plain_result()).to_latex()
    assert code.isascii(), set(re.findall(r"[^\x00-\x7f]", code))
    assert latex("–") == "--"


def test_markdown_keeps_its_columns() -> None:
    frame = pd.DataFrame({"a|b": ["x|y", "line\nbreak"], "v": [1.0, 2.0]})
    lines = sk.table(frame, ["a|b", "v"]).to_markdown().splitlines()
    assert len(lines) == 4
    assert lines[1] == "| :--- | ---: |"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_html_escapes_untrusted_names() -> None:
    shown = sk.table(pd.DataFrame({"trace": ["<script>alert(1)</script>"]}), ["trace"])._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_unknown_column_names_the_nearest() -> None:
    with pytest.raises(InputError, match="no column 'speed'; did you mean 'speedup'"):
        sk.table(plain_result(), ["speed"])
    with pytest.raises(InputError, match="the result has no op 'up'"):
        sk.table(plain_result(), ops="up")
