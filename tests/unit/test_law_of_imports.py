"""Who may import whom: packages, rooms inside a package, and files among each other. Drawn in CONTRIBUTING.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("hwmodels", "traces", "simkit")
FORBIDDEN = {"hwmodels": {"torch", "traces", "simkit"}, "traces": {"hwmodels", "simkit"}}
# Bottom to top: a room imports from rooms before it only; rooms in one group may import each other.
ROOMS = {
    "hwmodels": (
        "errors sources units config scaling mask op+counting counts mapping arch costs+energy vector gpu reference "
        "kernel hierarchy memory kernels registry explain memo statistical"
    ),
    "traces": (
        "errors files fetch provenance models data oplist storage transform tuning recording training_step catalog"
    ),
    "simkit": (
        "_owner errors files provenance results engine measure validation plots explore report doctor demo cli __main__"
    ),
}
MOST_MODULES = {"simkit": 8, "traces": 5}


@cache
def modules() -> dict[str, Path]:
    """Return every module by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of each import, those inside functions and for types alone among them."""
    path = modules()[module]
    home = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = home[: len(home) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for name in node.names:
                inner = f"{base}.{name.name}"
                yield inner if inner in modules() else base, node.lineno


def room(module: str) -> str:
    """Return the room of a module: the part after its package."""
    return module.split(".")[1]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages(package: str) -> None:
    for module, path in modules().items():
        if module.split(".")[0] == package:
            for name, line in imports(module):
                assert name.split(".")[0] not in FORBIDDEN[package], f"{path}:{line} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_room_imports_from_rooms_below_it(package: str) -> None:
    floor = {name: index for index, group in enumerate(ROOMS[package].split()) for name in group.split("+")}
    inside = [name for name in modules() if name.startswith(package + ".")]
    assert {room(name) for name in inside} == set(floor), "a room without a floor, or a floor without its room"
    for module in inside:
        for name, line in imports(module):
            if name.startswith(package + ".") and name in modules():
                assert floor[room(name)] <= floor[room(module)], f"{modules()[module]}:{line} imports {name} from above"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_between_files(package: str) -> None:
    faces = {name for name, path in modules().items() if path.name == "__init__.py"}
    arrows = {
        module: {name for name, _ in imports(module) if name in modules() and name not in faces and name != module}
        for module in modules()
        if module.split(".")[0] == package and module not in faces
    }
    left = dict(arrows)
    while True:
        wanted = set().union(*left.values())
        on = {module: targets & left.keys() for module, targets in left.items() if module in wanted}
        on = {module: targets for module, targets in on.items() if targets}
        if len(on) == len(left):
            break
        left = on
    assert not left, f"circles among {sorted(left)}"


@pytest.mark.parametrize(("package", "most"), MOST_MODULES.items())
def test_few_modules_stand_outside_a_room(package: str, most: int) -> None:
    names = sorted(path.stem for path in (ROOT / package).glob("*.py") if path.name != "__init__.py")
    assert len(names) <= most, f"{package}/ holds {names}; put new modules into a room"
