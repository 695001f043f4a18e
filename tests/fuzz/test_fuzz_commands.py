"""Command lines over inputs of every kind, each where it belongs and where another is expected."""

from __future__ import annotations

import pytest
from fuzz_commands import Lines
from fuzz_harness import check_command, place
from fuzz_profile import examples
from fuzz_world import World
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow


@examples("commands")
@given(choice=st.data())
def test_commands(world: World, choice: st.DataObject) -> None:
    words = choice.draw(Lines(world).command())
    with place() as folder:
        (folder / "taken").mkdir()
        (folder / "taken" / "mine.txt").write_text("kept")
        check_command(folder, *words)
        assert (folder / "taken" / "mine.txt").read_text() == "kept", words
