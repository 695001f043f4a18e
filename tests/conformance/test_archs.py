"""Every arch file is whole: it loads, fits its kernel, and says where each number comes from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hwmodels
from hwmodels import Op, PackedMask, list_archs, load_arch, load_table, simulate
from hwmodels.config import Figure
from hwmodels.registry import kernel_of, kernels, params_of

PACKAGE = Path(hwmodels.__file__).parent
FILES = sorted((PACKAGE / "archs").glob("*.yaml"))
KEY = re.compile(r"[a-z]+(19|20)\d\d\w*")
ENTRY = re.compile(r"(?m)^@\w+\{(\w+),")
BIBLIOGRAPHY = (PACKAGE / "references.bib").read_text(encoding="utf-8")


def figures(node: Any, path: str = "") -> Iterator[tuple[str, Figure]]:
    """Every number with an origin in an arch, with its path."""
    if isinstance(node, Figure):
        yield path, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from figures(value, f"{path}.{key}")
    elif hasattr(type(node), "model_fields"):
        for key in type(node).model_fields:
            yield from figures(getattr(node, key), f"{path}.{key}")


def test_archs_are_found_by_globbing() -> None:
    assert [file.stem for file in FILES] == [name for name in list_archs() if (PACKAGE / f"archs/{name}.yaml").exists()]
    assert len(FILES) >= 14


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_arch_is_whole(file: Path) -> None:
    arch = load_arch(file.stem)
    assert arch.name == file.stem
    assert arch.title
    assert arch.description
    assert set(arch.params) == set(kernel_of(arch).params._fields)
    params_of(arch)
    assert arch.clock_hz > 0
    assert float(arch.memory.bandwidth.value) > 0
    if arch.memory.activation_format in ("offset", "csc") or arch.memory.weight_format in ("offset", "csc"):
        assert arch.memory.index_bits is not None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_figure_has_an_origin(file: Path) -> None:
    known = set(ENTRY.findall(BIBLIOGRAPHY))
    arch = load_arch(file.stem)
    assert arch.source in known
    found = dict(figures(arch))
    assert len(found) > 8
    for path, figure in found.items():
        assert figure.source.strip(), path
        assert figure.status in ("measured", "published", "assumed"), path
        if KEY.fullmatch(figure.source):
            assert figure.source in known, f"{path}: no entry for {figure.source} in references.bib"
        if figure.low is not None and figure.high is not None:
            assert figure.low <= float(figure.value) <= figure.high, path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_counted_action_is_priced(file: Path) -> None:
    arch, table = load_arch(file.stem), load_table("default_45nm")
    kernel = kernel_of(arch)
    op = Op(
        "x", 0, 70, 300, 90,
        PackedMask.bernoulli(70, 300, 0.4, 1),
        PackedMask.bernoulli(90, 300, 0.5, 2),
        PackedMask.bernoulli(70, 90, 0.5, 3) if "output" in kernel.skips else None,
        batch=16,
    )  # fmt: skip
    counted = set()
    for resident in ("streamed", "resident"):
        variant = arch.with_(memory__weights=resident)
        counted |= simulate(op, variant).actions.keys()
    for action in counted:
        assert table.price(arch, action).pj > 0 or action == "pe.empty", action
    for action in arch.actions:
        assert table.price(arch, action).pj >= 0, action


def test_kernels_have_archs_and_twins() -> None:
    used = {load_arch(file.stem).kernel for file in FILES}
    assert used == set(kernels())
    for kernel in kernels().values():
        assert kernel.twin.__module__.startswith("hwmodels.reference.")
        assert kernel.skips <= {"activation", "weight", "output"}
        text = sys.modules[kernel.count.__module__].__doc__
        assert text, kernel.name
        assert "doi:" in text or "arXiv" in text or "hwmodels." in text, f"{kernel.name}: no source in its docstring"


def test_bibliography_is_sound() -> None:
    keys = ENTRY.findall(BIBLIOGRAPHY)
    assert keys == sorted(set(keys))
    assert BIBLIOGRAPHY.count("{") == BIBLIOGRAPHY.count("}")
    for entry in re.split(r"(?m)^(?=@)", BIBLIOGRAPHY)[1:]:
        assert "title = " in entry
        assert "year = " in entry
        assert "doi = " in entry or "eprint = " in entry or "NVIDIA" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("name", [file.stem for file in sorted((PACKAGE / "tables").glob("*.yaml"))])
def test_energy_rows_have_origins(name: str) -> None:
    known = set(ENTRY.findall(BIBLIOGRAPHY))
    table = load_table(name)
    assert table.rows
    for row_name, row in table.rows.items():
        figure = row.energy
        assert float(figure.value) >= 0, row_name
        assert figure.source.strip(), row_name
        if KEY.fullmatch(figure.source):
            assert figure.source in known, f"{row_name}: no entry for {figure.source}"
        if figure.low is not None:
            assert figure.low <= float(figure.value), row_name
        if figure.high is not None:
            assert figure.high >= float(figure.value), row_name
