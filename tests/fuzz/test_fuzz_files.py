"""Files of masks, data sets, measurements and traces: read, or refused in a line that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fuzz_files import data_files, mask_files, measurements, spoiled
from fuzz_harness import call, check_command, place
from fuzz_profile import examples
from fuzz_world import World
from hypothesis import given
from hypothesis import strategies as st

import simkit as sk
import traces

pytestmark = pytest.mark.slow


@examples("masks")
@given(
    file=mask_files(),
    options=st.lists(
        st.sampled_from(
            ["--header", "--no-header", "--no-index", "--n=4", "--n=4", "--n=4", "--n=0", "--site=a", "--json"]
        ),
        max_size=3,
    ),
)
def test_masks(file: tuple[str, bytes], options: list[str]) -> None:
    name, data = file
    with place() as folder:
        (folder / name).write_bytes(data)
        check_command(folder, "trace", "import", name, "-o", "out.zarr", *options)


@examples("data")
@given(
    file=data_files(),
    text=st.sampled_from(["text", "text", "a", "nothing"]),
    label=st.sampled_from(["label", "label", None, "a", "text"]),
    task=st.sampled_from([None, "classification", "regression", "seq2seq", "causal-lm", "features"]),
)
def test_data(file: tuple[str, bytes], text: str, label: str | None, task: str | None) -> None:
    name, data = file
    with place() as folder:
        path = folder / name
        if name == "data":  # without an ending it is a name on a hub
            name, path = "data.xyz", folder / "data.xyz"
        path.write_bytes(data)
        loaded = call(
            f"{name} text={text} label={label} task={task}\n{data[:500]!r}",
            lambda: traces.load_data(str(path), text=text, label=label, task=task),
            [name],
        )
        if loaded is not None:
            assert len(loaded.train)
            assert len(loaded.test)
            assert all(isinstance(item, str) for item in loaded.test.items)


@examples("measurements")
@given(file=measurements(), how=st.integers(0, 3))
def test_measurements(world: World, file: tuple[str, bytes], how: int) -> None:
    name, data = file
    with place() as folder:
        (folder / name).write_bytes(data)
        if how == 0:
            call(
                f"{name}\n{data[:500]!r}",
                lambda: sk.validate(sk.load_result(world.result), folder / name).summary(),
                [name, "measure"],
            )
        elif how == 1:
            check_command(folder, "measure", "import", name, "--json")
        elif how == 2:
            check_command(folder, "plot", "predicted", name, "-o", "out.svg")
        else:
            check_command(folder, "validate", "--reference", str(folder), "--json")


@examples("stores")
@given(choice=st.data())
def test_stores(world: World, choice: st.DataObject) -> None:
    """A trace or a result with one file damaged is refused, or read where the file does not matter."""
    with place() as folder:
        if choice.draw(st.booleans()):
            data = choice.draw(spoiled(Path(world.result).read_bytes()))
            (folder / "r.parquet").write_bytes(data)
            words = choice.draw(
                st.sampled_from(
                    [
                        ["diff", "r.parquet", world.result],
                        ["report", "r.parquet"],
                        ["plot", "speedup", "r.parquet", "-o", "x.svg"],
                    ]
                )
            )
            check_command(folder, *words)
            return
        trace = Path(shutil.copytree(world.trace, folder / "t.zarr"))
        files = sorted(path for path in trace.rglob("*") if path.is_file())
        path = choice.draw(st.sampled_from([*files, *[one for one in files if one.name == "zarr.json"] * 2]))
        content = path.read_bytes()
        if path.name == "zarr.json" and choice.draw(st.booleans()):
            content = choice.draw(_metadata(content))
            path.write_bytes(content)
        elif choice.draw(st.integers(0, 4)) == 0:
            path.unlink()
        else:
            path.write_bytes(choice.draw(spoiled(content)))
        words = choice.draw(
            st.sampled_from([["trace", "info"], ["trace", "verify"], ["trace", "stats"], ["replay", "-a", "cnvlutin"]])
        )
        check_command(folder, *words, "t.zarr")


@st.composite
def _metadata(draw: st.DrawFn, content: bytes) -> bytes:
    """Change one value in a group's or an array's metadata."""
    held = json.loads(content)
    at = held
    for _ in range(draw(st.integers(0, 4))):
        inner = [
            key
            for key, value in (at.items() if isinstance(at, dict) else enumerate(at))
            if isinstance(value, dict | list) and value
        ]
        if not inner:
            break
        at = at[draw(st.sampled_from(inner))]
    key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
    if draw(st.integers(0, 3)) == 0:
        del at[key]
    else:
        at[key] = draw(st.sampled_from([None, -1, 0, 10**9, "x", [], {}, [1], True, 1.5, "complete"]))
    return json.dumps(held).encode()
