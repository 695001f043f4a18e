"""Methods are discovered: a new module with METHOD is one, machinery beside it is not, and discovery imports none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from traces import tuning
from traces.tuning.methods import registry


def test_methods_come_with_their_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = sys.modules[registry.__package__ or ""]
    (tmp_path / "brand_new.py").write_text("METHODS: tuple = ()\n")
    (tmp_path / "machinery.py").write_text('raise ImportError("not a method, so never imported")\n# METHOD = 1\n')
    before = registry._modules_of_methods()
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert sorted(registry._modules_of_methods()) == sorted([*before, "brand_new"])


def test_every_method_of_the_package_is_found() -> None:
    names = set(tuning.list_methods())
    assert {"lora", "full", "none", "prompt", "adalora", "density"} <= names
    assert names == {method.name for method in tuning.list_methods().values()}


def test_discovery_reads_modules_and_imports_none() -> None:
    code = (
        "import sys, traces.tuning.registry as r; before = set(sys.modules); found = r._modules_of_methods(); "
        "print(len(found) > 10, set(sys.modules) - before)"
    ).replace("traces.tuning.registry", registry.__name__)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"
