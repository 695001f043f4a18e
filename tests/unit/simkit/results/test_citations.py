"""Citations: every source behind a result's numbers, once, as BibTeX."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from plain_result import plain_result

import hwmodels
import simkit as sk
from simkit.results.citations import KEY, bibliography, sources

# the name simkit.cite is the function
module = import_module("simkit.results.citations")


def keys(text: str) -> list[str]:
    return re.findall(r"(?m)^@\w+\{([^,]+),", text)


def test_entries_are_whole() -> None:
    assert len(bibliography()) > 10
    for key, entry in bibliography().items():
        assert entry.count("{") == entry.count("}"), key
        assert re.search(r"(?i)\btitle\s*=", entry), key


def test_every_source_of_archs_and_tables_is_in_the_bibliography_or_a_phrase() -> None:
    dumps = [hwmodels.load_arch(name).model_dump() for name in hwmodels.list_archs()]
    dumps += [hwmodels.load_table(name).model_dump() for name in hwmodels.list_tables()]
    missing = {s for tree in dumps for s in module._sources(tree) if KEY.fullmatch(s) and s not in bibliography()}
    assert not missing


def test_cites_arch_figures_rows_and_method_once() -> None:
    found = keys(sk.cite(plain_result()))
    assert len(found) == len(set(found))
    assert {"albericio2016cnvlutin", "chen2014dadiannao", "han2016eie", "horowitz2014"} <= set(found)
    assert any("2402.01911" in entry for entry in sk.cite(plain_result()).split("\n\n"))


def test_rows_that_no_design_uses_are_not_cited() -> None:
    result = plain_result()
    only = {run: meta for run, meta in result.meta["runs"].items() if meta["arch"]["name"] == "systolic_32x32"}
    found = sources(sk.Result(result.frame, {"runs": only}))
    arch = hwmodels.load_arch("systolic_32x32")
    table = hwmodels.load_table("default_45nm")
    assert {table.row(row).energy.source for action in arch.actions.values() for row in action.rows} <= set(found)
    assert "han2016eie" not in found


def test_a_key_without_an_entry_becomes_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {key: entry for key, entry in bibliography().items() if key != "han2016eie"}
    monkeypatch.setattr(module, "bibliography", lambda: known)
    text = sk.cite(plain_result())
    assert "% no entry for 'han2016eie'" in text
    assert "@" in text


def test_a_method_whose_paper_is_unknown_becomes_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    without = {key: entry for key, entry in bibliography().items() if "2402.01911" not in entry}
    monkeypatch.setattr(module, "bibliography", lambda: without)
    entry = next(part for part in sk.cite(plain_result()).split("\n\n") if "2402.01911" in part)
    assert entry.startswith("@misc{density_2402.01911,")
    assert "eprint = {2402.01911}" in entry


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ("DEFT, arXiv ", ("", "DEFT")),
        ("Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, arXiv ",
         ("Liu and others", "DoRA: Weight-Decomposed Low-Rank Adaptation")),
        ("Mirzadeh et al., ReLU Strikes Back, arXiv 2310.04564; ProSparse, arXiv ", ("", "ProSparse")),
        ("Li and Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, arXiv ",
         ("Li and Liang", "Prefix-Tuning: Optimizing Continuous Prompts for Generation")),
        ("Jacob et al., arXiv 1712.05877; group-wise scales: Dettmers and Zettlemoyer, arXiv ",
         ("Dettmers and Zettlemoyer", "")),
        ("no paper; its gates follow Bengio et al., arXiv 1308.3432, and Louizos et al., arXiv ",
         ("Louizos and others", "")),
    ],
)  # fmt: skip
def test_author_and_title_are_those_of_the_one_paper(before: str, wanted: tuple[str, str]) -> None:
    assert module._named(before) == wanted


def test_no_two_papers_of_a_method_have_one_title() -> None:
    from traces.tuning import list_methods

    for name, method in list_methods().items():
        found = [module._misc(name, one, method.source) for one in module.IDENTIFIER.findall(method.source)]
        titles = [re.search(r"title = \{(.+)\}", entry).group(1) for entry in found]
        assert len(set(titles)) == len(titles), name
        assert not any("; " in title for title in titles)
