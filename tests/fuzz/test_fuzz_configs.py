"""YAML of archs, energy tables, tunings, sweeps and searches: read and replayed, or refused in clear lines."""

from __future__ import annotations

import pytest
from fuzz_harness import call, check_command, check_result, place, report
from fuzz_profile import examples
from fuzz_world import World, shipped
from fuzz_yaml import documents
from hypothesis import given
from hypothesis import strategies as st

import hwmodels
import simkit as sk
import traces
from hwmodels.config import from_yaml

pytestmark = pytest.mark.slow


@examples("archs")
@given(data=documents(shipped("hwmodels/archs")))
def test_archs(world: World, data: bytes) -> None:
    with place() as folder:
        path = folder / "own.yaml"
        path.write_bytes(data)
        loaded = call(data.decode("utf-8", "replace"), lambda: sk.arch(path), ["own.yaml"])
        if loaded is None:
            return
        trace = sk.load_trace(world.trace)
        result = call(loaded.model_dump_json(), lambda: sk.replay(trace, loaded))
        if result is not None:
            check_result(loaded.model_dump_json(), result)
        again = call(loaded.model_dump_json(), lambda: type(loaded).model_validate_json(loaded.model_dump_json()))
        if again is not None and again.hash != loaded.hash:
            report("another hash", loaded.model_dump_json())


@examples("tables")
@given(data=documents(shipped("hwmodels/tables")))
def test_tables(world: World, data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    table = call(text, lambda: from_yaml(hwmodels.EnergyTable, text, "own.yaml"), ["own.yaml"])
    if table is None:
        return
    trace = sk.load_trace(world.trace)
    result = call(text, lambda: sk.replay(trace, ["cnvlutin", "h100_sxm"], table=table))
    if result is not None:
        check_result(text, result)


@examples("tunings")
@given(data=documents(shipped("traces/tuning/presets")))
def test_tunings(data: bytes) -> None:
    with place() as folder:
        path = folder / "own.yaml"
        path.write_bytes(data)
        about = data.decode("utf-8", "replace")
        tuning = call(about, lambda: traces.load_tuning(str(path)), ["own.yaml"])
        if tuning is None:
            return
        path.write_text(tuning.to_yaml(), encoding="utf-8")
        again = call(about, lambda: traces.load_tuning(str(path)))
        if again is None or again.hash != tuning.hash:
            report("another hash", f"{about}\n{tuning.to_yaml()}")


@examples("sweeps")
@given(choice=st.data())
def test_sweeps(world: World, choice: st.DataObject) -> None:
    with place() as folder:
        (folder / "spec.yaml").write_bytes(choice.draw(documents(world.sweeps())))
        ran = check_command(folder, "sweep", "spec.yaml", "--dry-run")
        found = ran.out.rsplit(" points of ", 1)[0].rsplit(" ", 1)[-1].replace(",", "")
        if ran.code == 0 and found.isdigit() and int(found) <= 30:
            check_command(
                folder, "sweep", "spec.yaml", "--processes", "0", *choice.draw(st.sampled_from([[], ["--json"]]))
            )


@examples("searches")
@given(choice=st.data())
def test_searches(world: World, choice: st.DataObject) -> None:
    pytest.importorskip("optuna")
    with place() as folder:
        (folder / "spec.yaml").write_bytes(choice.draw(documents(world.searches())))
        check_command(folder, "search", "spec.yaml", "--trials", "2", *choice.draw(st.sampled_from([[], ["--json"]])))
