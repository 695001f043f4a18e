"""What a user sees when a tool is missing, old, or fails: one line with the remedy, and the log kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from simkit.errors import InputError, UnavailableError
from simkit.validation.rtl import build as building
from simkit.validation.rtl import synth as synthesis
from simkit.validation.rtl import tools, validate_rtl
from simkit.validation.rtl.designs import design_of


@pytest.fixture
def fake_tools(tmp_path, monkeypatch):
    """An empty PATH with a cache of its own; write executables into the returned folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tools.verilator_version.cache_clear()
    yield folder
    tools.verilator_version.cache_clear()


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!{os.path.realpath('/bin/sh')}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_no_verilator(fake_tools):
    with pytest.raises(UnavailableError) as caught:
        validate_rtl(["tensordash"])
    assert "apt-get install verilator" in _one_line(caught.value)


def test_old_verilator(fake_tools):
    _script(fake_tools / "verilator", "echo 'Verilator 4.038 2020-07-11 rev v4.036'")
    with pytest.raises(UnavailableError) as caught:
        validate_rtl(["eie"])
    assert "4.038" in _one_line(caught.value)
    assert "5.006" in str(caught.value)


def test_no_compiler(fake_tools):
    _script(fake_tools / "verilator", "echo 'Verilator 5.006 2023-01-22'")
    with pytest.raises(UnavailableError, match=r"needs 'g\+\+'.*apt-get install"):
        validate_rtl(["eie"])


def test_failing_build_keeps_its_log(fake_tools, tmp_path):
    body = 'if [ "$1" = --version ]; then echo Verilator 5.006; else echo "%Error: no such thing"; exit 3; fi'
    _script(fake_tools / "verilator", body)
    for tool in ("g++", "make"):
        _script(fake_tools / tool, "exit 0")
    with pytest.raises(UnavailableError) as caught:
        building.build("eie.sv", "eie_top", {"PES": 4})
    assert "%Error: no such thing" in _one_line(caught.value)
    logs = list((tmp_path / "cache").rglob("build.log"))
    assert len(logs) == 1
    assert str(logs[0]) in str(caught.value)
    assert "no such thing" in logs[0].read_text()


def test_arch_without_rtl():
    with pytest.raises(InputError, match=r"'h100_sxm'.*has no RTL; these kernels have: systolic, cnvlutin"):
        validate_rtl(["h100_sxm"])


def test_unknown_arch_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'tensordash'"):
        design_of("tensordsh")


def test_an_arch_finds_the_rtl_of_its_kernel():
    assert design_of("systolic_32x32").top == "ws_top"


def test_no_cell_library(tmp_path):
    with pytest.raises(UnavailableError) as caught:
        synthesis.synth(["dense_pe"], liberty=tmp_path / "cells.lib")
    assert "apt-get install qflow-tech-osu018" in _one_line(caught.value)


def test_damaged_cell_library(tmp_path):
    from simkit.validation.rtl.liberty import load_library

    path = tmp_path / "cells.lib"
    path.write_text("library(x) { cell(A) { area : 1;")
    with pytest.raises(InputError, match="ends early"):
        load_library(path)


def test_no_yosys(monkeypatch, tmp_path):
    monkeypatch.setattr(synthesis, "find_spec", lambda name: None)
    (tmp_path / "cells.lib").write_text("library(x) { }")
    with pytest.raises(UnavailableError, match=r"pip install 'zeroskip\[rtl\]'"):
        synthesis.synth(["dense_pe"], liberty=tmp_path / "cells.lib")


def test_unknown_gate_design():
    with pytest.raises(InputError, match="did you mean 'dense_pe'"):
        synthesis.synth(["dense_p"])
