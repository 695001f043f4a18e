"""What stands in one place: files written whole, provenance, the cache folder, the words of a suggestion."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import traces.errors
import traces.provenance
from hwmodels.counting import jit as _jit
from hwmodels.errors import nearest
from simkit import files, provenance
from simkit.doctor import examine
from simkit.errors import StorageError
from simkit.validation.rtl import tools
from traces.fetch import cache_folder


def test_files_are_forced_to_disk_before_they_take_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), real(a, b)))
    with files.whole(tmp_path / "deep" / "a.txt") as partial:
        partial.write_text("x")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert calls == ["fsync", "replace"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "x"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with files.whole(tmp_path / "a") as one, files.whole(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), files.whole(tmp_path / "a") as partial:
        fail(partial)
    with pytest.raises(StorageError, match=r"cannot write .*/a: "), files.whole(tmp_path / "a"):
        pass  # nothing was written
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"cannot write .*/file/b: "),
        files.whole(tmp_path / "file" / "b") as partial,
    ):
        partial.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["ZEROSKIP_CACHE", "XDG_CACHE_HOME"])
def test_every_cache_heeds_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("ZEROSKIP_CACHE", raising=False)
    monkeypatch.setenv(name, str(tmp_path))
    home = tmp_path if name == "ZEROSKIP_CACHE" else tmp_path / "zeroskip"
    assert cache_folder() == home
    assert tools.cache_folder("rtl") == home / "rtl"
    assert Path(_jit._cache_folder()).parent == home
    (row,) = (row for row in examine() if row["what"] == "cache")
    assert row["detail"] == str(home)


def test_provenance_of_both_kinds_agrees() -> None:
    here, there = provenance.environment(), traces.provenance.provenance()
    assert here["cpu"] == there["processor"]
    assert here["python"] == there["python"]
    shared = here["versions"].keys() & there["versions"].keys()
    assert {name: here["versions"][name] for name in shared} == {name: there["versions"][name] for name in shared}
    if there["git"]:
        assert here["git"] == {"commit": there["git"]["commit"], "modified": there["git"]["dirty"]}


@pytest.mark.parametrize("word", ["cnvlutim", "zzz", ""])
def test_both_packages_suggest_in_the_same_words(word: str) -> None:
    names = ["cnvlutin", "eie", "scnn"]
    assert nearest(word, names) == traces.errors.did_you_mean(word, names)
