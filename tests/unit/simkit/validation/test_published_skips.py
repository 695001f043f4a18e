"""Published figures that need data from outside the package are skipped by name, and counted nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from simkit.validation import published


def test_figures_without_their_data_are_skipped_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "REFERENCE", tmp_path)
    skipped = list(published._eyeriss())
    assert {row["verdict"] for row in skipped} == {"skipped"}
    assert {(row["ours"], row["error"]) for row in skipped} == {(None, None)}
    dense = list(published._dense())
    line = published.counted([*dense, *skipped])
    assert line.startswith(f"{len(dense)} figures: {len(dense)} exact. {len(skipped)} skipped and not counted: ")
    assert "pe_masks.npz" in line
    assert published.counted(dense) == f"{len(dense)} figures: {len(dense)} exact"
