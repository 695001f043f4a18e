"""hwmodels imports neither torch nor a sibling; traces imports no sibling; only simkit joins them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {"hwmodels": {"torch", "traces", "simkit"}, "traces": {"hwmodels", "simkit"}}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_law_of_imports(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            broken = {name.split(".")[0] for name in names} & FORBIDDEN[package]
            assert not broken, f"{path.relative_to(ROOT)}:{node.lineno} imports {broken}"
