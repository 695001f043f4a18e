"""Identity of counting code: a kernel's own functions and helpers, in every process alike; files in any folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hwmodels import registry, sources
from hwmodels.counting import jit as _jit
from hwmodels.kernel import Kernel
from hwmodels.registry import built_in, kernels

MODULE = """
from typing import NamedTuple
import numba
import numpy as np
from hwmodels import Compute, Kernel, Op, PackedMask
TABLE = {"a": np.arange(4), "b": {"x", "y", "z"}}
COST = 1

class Params(NamedTuple):
    lanes: int

@numba.njit
def helper(x):
    return x + 1

def other(x):
    return helper(x) * COST

class Model:
    def cycles(self, op):
        return other(op.m) + len(TABLE)

def make(extra):
    def count(op, params, arch, model=Model()):
        return model.cycles(op) + extra
    return count

unrelated = 1

def twin(op, params, arch):
    return 0

KERNEL = Kernel("mine", Params, make(3), twin, skips=frozenset({"activation", "weight"}))
"""


def kernel_from(text: str, name: str = "brought") -> Kernel:
    module = ModuleType(name)
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    found: Kernel = module.KERNEL
    return found


def test_own_kernels_are_hashed_as_files() -> None:
    assert {registry.kernel_hash(kernel) for kernel in built_in().values()} == {""}
    assert registry.kernel_hash(replace(kernels()["cnvlutin"], skips=frozenset())) != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + 1", "return x + 2"),
        ("COST = 1", "COST = 2"),
        ("helper(x) * COST", "helper(x) - COST"),
        ("np.arange(4)", "np.arange(5)"),
        ('"z"}', '"w"}'),
        ("other(op.m) + len", "other(op.k) + len"),
        ("make(3)", "make(4)"),
        ("lanes: int", "lanes: int\n    rows: int"),
        ('{"activation", "weight"}', '{"activation"}'),
    ],
)
def test_what_changes_counts_changes_the_hash(old: str, new: str) -> None:
    assert old in MODULE
    assert registry.kernel_hash(kernel_from(MODULE.replace(old, new))) != registry.kernel_hash(kernel_from(MODULE))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("unrelated = 1", "unrelated = 2"),
        ("return 0", "return 1"),  # the twin
        ("unrelated = 1", "# a comment\n\nm = 5"),  # an attribute's name, not a global that is read
    ],
)
def test_what_changes_no_count_leaves_the_hash(old: str, new: str) -> None:
    assert old in MODULE
    assert registry.kernel_hash(kernel_from(MODULE.replace(old, new))) == registry.kernel_hash(kernel_from(MODULE))


def test_every_process_comes_to_the_same_hash(tmp_path: Path) -> None:
    (tmp_path / "brought.py").write_text(MODULE)
    code = "import brought, hwmodels.registry as s; print(s.kernel_hash(brought.KERNEL))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_an_installed_package_of_a_kernel_is_hashed_by_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_installed", lambda module: True)
    old, new = (registry.kernel_hash(kernel_from(text)) for text in (MODULE, MODULE.replace("x + 1", "x + 2")))
    assert old != new


def test_files_of_every_folder_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, data = ("a.py", "counting/deep/b.py", "reference/twin.py"), ("gpu/c.yaml", "costs/d.yaml", "tables/e.csv")
    for name in (*code, *data, "archs/x.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"jit {name}")
    monkeypatch.setattr(sources, "ROOT", tmp_path)

    def hashes() -> tuple[str, str]:
        sources.package_hash.cache_clear()
        return sources.package_hash(), _jit._cache_folder()

    monkeypatch.setenv("ZEROSKIP_CACHE", str(tmp_path / "cache"))
    try:
        first = hashes()
        assert Path(first[1]).parent == tmp_path / "cache"
        for name, counts, compiled in (
            ("counting/deep/b.py", True, True),
            ("gpu/c.yaml", True, False),
            ("costs/d.yaml", True, False),
            ("tables/e.csv", True, False),
            ("reference/twin.py", False, False),
            ("archs/x.yaml", False, False),
        ):
            before = hashes()
            (tmp_path / name).write_text(f"jit {name} changed")
            after = hashes()
            assert (before[0] != after[0], before[1] != after[1]) == (counts, compiled), name
    finally:
        sources.package_hash.cache_clear()


def test_a_cache_that_cannot_be_written_leaves_no_folder_behind(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = "import hwmodels.counting.jit as h; import traces.storage.jit as t; print(h.CACHE_FOLDER); print(t.FOLDER)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ZEROSKIP_CACHE": str(blocked), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    folders = [Path(line) for line in done.stdout.split()]
    assert [folder.parent for folder in folders] == [tmp_path, tmp_path]
    assert not any(folder.exists() for folder in folders)


def test_hash_takes_any_kind_of_object() -> None:
    def kernel(thing: Any) -> Kernel:
        return kernel_from(MODULE.replace("COST = 1", f"COST = {thing}"))

    for thing in ("lambda x: x", "open", "np.random.default_rng()", "print", "[1, (2, {3: None})]", "numba"):
        assert len(registry.kernel_hash(kernel(thing))) == 16
