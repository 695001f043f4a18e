"""Synthetic traces keep a real one's statistics, and say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from traces import export_trace, import_masks, open_trace, slice_trace, synthesise
from traces.errors import InputError
from traces.transform.statistics import coactivation, neuron_counts, token_counts, union_density


@pytest.mark.slow
def test_statistics_match_the_real_trace(small_trace_path: Path, tmp_path: Path) -> None:
    real = open_trace(small_trace_path)
    made = synthesise(real, tmp_path / "s.zarr", seed=3)
    assert made.attrs["synthetic"] is True
    assert made.attrs["synthetic_from"]["hash"] == real.hash
    assert [op.macs for op in made.ops()] == [op.macs for op in real.ops()]
    followed, paired = [], []
    for name, site in real.sites.items():
        a, b = site.mask(False), made.sites[name].mask(False)
        p, q = neuron_counts(a) / a.shape[0], neuron_counts(b) / b.shape[0]
        assert q.mean() == pytest.approx(p.mean(), rel=0.06)
        assert np.corrcoef(p, q)[0, 1] > 0.9
        x, y = token_counts(a), token_counts(b)
        assert np.std(y) == pytest.approx(np.std(x), rel=0.25)
        followed.append(np.corrcoef(x, y)[0, 1])
        assert union_density(b, 8) == pytest.approx(union_density(a, 8), rel=0.2)
        hot = np.argsort(-neuron_counts(a))[:64]
        paired.append(np.corrcoef(coactivation(a, hot).ravel(), coactivation(b, hot).ravel())[0, 1])
    assert np.mean(followed) > 0.8
    assert min(paired) > 0.5, paired  # the last layer, bursty over ten sequences only, follows least
    assert np.median(paired) > 0.75
    made.verify()


@pytest.mark.slow
def test_density_can_be_chosen_and_the_seed_decides(small_trace_path: Path, tmp_path: Path) -> None:
    real = open_trace(small_trace_path)
    thin = synthesise(real, tmp_path / "a.zarr", density=0.05)
    assert np.mean([s.density(False) for s in thin.sites.values()]) == pytest.approx(0.05, rel=0.15)
    assert synthesise(real, tmp_path / "b.zarr", density=0.05).hash == thin.hash
    assert synthesise(real, tmp_path / "c.zarr", density=0.05, seed=1).hash != thin.hash


def test_impossible_density(small_trace_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        synthesise(open_trace(small_trace_path), tmp_path / "a.zarr", density=1.5)


@pytest.mark.parametrize("form", ["npz", "npy", "csv"])
def test_the_mark_stays_wherever_the_masks_go(form: str, small_trace_path: Path, tmp_path: Path) -> None:
    one = slice_trace(open_trace(small_trace_path), tmp_path / "r.zarr", sites=["layers.0.down"], sequences=2)
    made = synthesise(one, tmp_path / "s.zarr")
    assert "synthetic" in repr(made)
    assert "synthetic" in made._repr_html_()
    assert "synthetic" not in repr(one)
    assert slice_trace(made, tmp_path / "c.zarr", sequences=1).attrs["synthetic"] is True
    for trace, marked in ((made, True), (one, False)):
        out = tmp_path / str(marked)
        paths = export_trace(trace, out, form)
        back = import_masks(paths[0] if form == "npz" else out, tmp_path / f"{marked}.zarr")
        assert back.attrs["synthetic"] is marked
        assert list(back.sites) == ["layers.0.down"]
    (problem,) = export_trace(made, tmp_path / "sl", "sparseloop")
    assert "# SYNTHETIC trace" in problem.read_text()
