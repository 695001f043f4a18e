"""Write the pages that list objects, from the objects themselves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from textwrap import dedent
from typing import Any

import figures
import interface

import hwmodels
from hwmodels.config import packaged
from hwmodels.registry import kernels
from simkit.explore.methods import stored_models
from simkit.report.evidence import design_status, measured_rows, published_rows
from simkit.results.citations import bibliography

FAMILIES = {
    "gpu": "GPUs",
    "systolic": "Dense arrays",
    "dadiannao": "Dense arrays",
}
REFIT = Path(__file__).parents[1] / "tests" / "benchmarks" / "tuning" / "refit.json"
OTHER = "Zero-skip designs"
ORDER = (OTHER, "Dense arrays", "GPUs")
VERDICTS = ("exact", "within band", "off", "not reproducible", "skipped")


def write(out: Path, notebooks: Path) -> None:
    """Write all generated pages into `out`; a page that did not change keeps its time, so a rebuild is quick."""
    pages = {
        "api.md": interface.api(),
        "accelerators/index.md": accelerator_index(),
        "references.md": references(),
        "validation.md": validation(),
        "energy_tables.md": energy_tables(),
        "tunings.md": tunings(),
        "methods.md": methods(),
        "refit.md": refit(),
        "commands.md": commands(),
    }
    pages |= {f"accelerators/{name}.md": accelerator(name) for name in hwmodels.list_archs()}
    for name, text in pages.items():
        _update(out / name, text.encode())
    for name in hwmodels.list_archs():
        picture = out / "accelerators" / f"{name}.svg"
        if not picture.exists():
            figures.density_curve(name, picture)
    for model in stored_models():
        figures.methods(model, out / f"methods-{model}.svg")
    figures.refit([row for row in refit_rows() if "perplexity" not in row], out / "refit.svg")
    for path in sorted(notebooks.glob("*.ipynb")):
        _update(out / "notebooks" / path.name, path.read_bytes())


def _update(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [list(heads), ["---"] * len(heads), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(value: object) -> str:
    """Return one cell's text; a bar or a line break would end it."""
    if value is None:
        return "–"
    text = f"{value:,.5g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def source(key: str) -> str:
    """Link a bibliography key; a phrase stays as it is."""
    return f"[{key}](#ref-{key})" if key in bibliography() else escape(key)


def escape(text: str) -> str:
    """Keep Markdown out of plain text."""
    return re.sub(r"([*_`<\[\]$#])", r"\\\1", text)


def family(arch: hwmodels.Arch) -> str:
    """Heading under which a design is listed."""
    return FAMILIES.get(arch.kernel, OTHER)


def accelerator_index() -> str:
    """List every design with its status."""
    archs = [hwmodels.load_arch(name) for name in hwmodels.list_archs()]
    parts = [
        "# Accelerators\n",
        "Each page has the schedule's equations, how the design answers to density, every number with its source, and "
        "the checks against published figures. A configuration is one YAML file; its page is made from it.\n",
    ]
    for heading in ORDER:
        rows = []
        for arch in (one for one in archs if family(one) == heading):
            status = design_status(arch.name)
            rows.append([f"[{arch.name}]({arch.name}.md)", escape(arch.title), source(arch.source), verdict(status)])
        parts.append(f"## {heading}\n\n{table(['name', 'design', 'source', 'held against'], rows)}")
    toc = "\n".join(arch.name for arch in archs)
    parts.append(f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{toc}\n```\n")
    return "\n".join(parts)


def verdict(status: dict[str, Any]) -> str:
    """Say how a design's checks came out."""
    if not status["checks"]:
        return status["measured"] or "none"
    parts = [(status["exact"], "exact"), (status["within"], "within band"), (status["off"], "off")]
    return ", ".join(f"{count} {name}" for count, name in parts if count)


def accelerator(name: str) -> str:
    """Return the page of one design."""
    arch = hwmodels.load_arch(name)
    kernel = kernels()[arch.kernel]
    module = import_module(kernel.count.__module__)
    raw = _raw(name)
    parts = [
        f"(arch-{name})=\n# {escape(arch.title)}\n",
        f"`{name}` — {escape(arch.description)} Source: {source(arch.source)}.\n",
        f"## Schedule: kernel `{arch.kernel}`\n",
        markdown_of(getdoc(module) or ""),
        "Zeros that change its cycles: " + (", ".join(sorted(kernel.skips)) or "none") + ".\n",
        f"## Density\n\n![Speed-up against density]({name}.svg)\n",
        "Speed-up in compute cycles over its own dense baseline on i.i.d. masks (512 tokens, K = 1536, N = 384; "
        "weights dense), memory left out. The dashed line is 1 / density.\n",
        "## Every number and its source\n",
        table(["field", "value", "status", "source", "note"], list(_figures(raw))),
        "## Price of each action\n",
        "Rows of the energy table that one action takes, times the factor.\n",
        table(
            ["action", "rows", "note"],
            [
                [f"`{key}`", ", ".join(f"`{row}` × {times:g}" for row, times in act.rows.items()), escape(act.note)]
                for key, act in arch.actions.items()
            ],
        ),
        "## What it was held against\n",
        checks([row for row in published_rows() if row["arch"] == name], with_arch=False),
        *([scores(own)] if (own := [row for row in measured_rows() if row["device"] == name]) else []),
    ]
    return "\n".join(parts)


@lru_cache(maxsize=1)
def _texts() -> dict[str, str]:
    return packaged("archs")


def _raw(name: str) -> dict[str, Any]:
    """Read a configuration as it is written: quantities with their units."""
    from ruamel.yaml import YAML

    text = _texts().get(name)
    if text is None:  # from an entry point: plain numbers in base units
        return hwmodels.load_arch(name).model_dump()
    return dict(YAML(typ="safe", pure=True).load(text))


def _figures(tree: dict[str, Any], prefix: str = "") -> Iterable[list[object]]:
    for key, value in tree.items():
        if not isinstance(value, dict) or key == "actions":
            continue
        if "value" in value and "status" in value:
            ends = " … ".join(str(value[end]) for end in ("low", "high") if end in value)
            written = f"{value['value']}{' bit' * (prefix == 'bits.')}" + (f" ({ends})" if ends else "")
            row = [f"`{prefix}{key}`", escape(written.replace("mm^2", "mm²")), value["status"]]
            yield [*row, source(value["source"]), escape(value.get("note", ""))]
        else:
            yield from _figures(value, f"{prefix}{key}.")


def markdown_of(docstring: str) -> str:
    """Turn a kernel's docstring into Markdown: indented equations become code, double backticks single ones."""
    blocks = []
    for block in re.split(r"\n\s*\n", docstring):
        if all(line.startswith("    ") for line in block.splitlines()):
            blocks.append("```text\n" + dedent(block) + "\n```")
        else:
            blocks.append(re.sub(r"``([^`]+)``", r"`\1`", escape_brackets(block)))
    return "\n\n".join(blocks) + "\n"


def escape_brackets(text: str) -> str:
    """Escape what Markdown would read as emphasis or a link, outside of code."""
    parts = re.split(r"(``?[^`]+``?)", text)
    return "".join(part if index % 2 else re.sub(r"([*\[\]$<])", r"\\\1", part) for index, part in enumerate(parts))


def checks(rows: Sequence[dict[str, Any]], with_arch: bool = True) -> str:
    """Return the table of checks, or say that there are none."""
    if not rows:
        return "None: no published figure of its own was found that this configuration could be held against.\n"
    heads = ["target", *(["design"] if with_arch else []), "published", "ours", "error", "verdict", "note"]
    body, notes = [], list(dict.fromkeys(row["reason"] for row in rows if row["reason"]))
    for row in rows:
        error = None if row["error"] is None else f"{row['error']:+.1%}" if row["error"] else "0"
        arch = [f"[{row['arch']}](accelerators/{row['arch']}.md)"] if with_arch else []
        verdict = f"**{row['verdict']}**" if row["verdict"] == "off" else row["verdict"]
        note = f"({notes.index(row['reason']) + 1})" if row["reason"] else ""
        body.append([escape(row["target"]), *arch, row["published"], row["ours"], error, verdict, note])
    listed = "".join(f"- ({number}) {escape(note)}\n" for number, note in enumerate(notes, 1))
    return table(heads, body) + ("\n" + listed if listed else "")


def validation() -> str:
    """Return the page of all checks."""
    rows = published_rows()
    counts = {name: sum(row["verdict"] == name for row in rows) for name in VERDICTS}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    parts = [
        "# Validation\n",
        "Validation here is a comparison with something this project did not make: a published figure, a measurement, "
        "RTL, or a result known by analysis. What this project computed before is regression, and is not listed.\n",
        f"`simkit validate --published` makes this table: {len(rows)} figures, {said}. A band is stated where the "
        "published figure cannot be reproduced exactly, with the reason.\n",
    ]
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_source.setdefault(row["source"], []).append(row)
    for key, part in by_source.items():
        parts.append(f"## {title_of(key)}\n\n{source(key)}\n\n{checks(part)}")
    parts += [measured(), gates()]
    return "\n".join(parts)


def measured() -> str:
    """Return how the GPU model fares on measurements, public ones and this project's bundles."""
    from simkit.measure.bundle import FOLDER
    from simkit.validation.bundles import validate_bundle

    parts = [
        "## GPU model against measurements\n",
        "Rows are split by shape, model or device before anything is fitted; *scored* rows were never fitted. The "
        "rooflines are what a simpler model reaches on the same rows.\n",
        "### Public measurements\n\n`simkit validate --reference FOLDER`: CSV or Parquet files, known by their names: "
        "`gemm_<dtype>_<device>`, `energy_<device>` and `sparse_mlp_<device>`, with anything after that.\n",
        scores(measured_rows()),
    ]
    devices = sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) if FOLDER.is_dir() else []
    for device in devices:
        parts.append(f"### Own measurements: {device}\n\n`simkit validate --bundle {device}`\n")
        parts.append(scores(validate_bundle(device)))
    return "\n".join(parts)


def scores(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of errors."""
    heads = ["set", "model", "quantity", "fitted", "scored", "mean error (%)", "90th percentile (%)", "bias (%)"]
    body = [
        [
            escape(row["set"]),
            escape(row["model"].replace("_", " ")),
            row.get("quantity", ""),
            row["rows_fit"],
            row["rows_scored"],
            *(f"{row[name]:.1f}" for name in ("mape_percent", "p90_percent", "bias_percent")),
        ]
        for row in rows
    ]
    return table(heads, body)


def gates() -> str:
    """Return the gate-level results: what skipping costs in logic, and below which density it pays."""
    from simkit.validation.rtl.results import load_results

    found = load_results()
    library = found["library"]
    parts = [
        "## Gates\n",
        f"RTL synthesised to {library['node_nm']} nm cells, energy from simulated toggles "
        f"({found['stimulus']['activations']} activations, {found['stimulus']['weights']} weights). Left out: "
        f"{found['left_out']}. `simkit synth` makes it.\n",
    ]
    heads = ["design", "cells", "area (µm²)", "critical path (ns)"]
    densities = sorted({row["density"] for row in found["rows"]})
    heads += [f"pJ per MAC slot at density {density:g}" for density in densities]
    body = []
    for name in dict.fromkeys(row["design"] for row in found["rows"]):
        rows = {row["density"]: row for row in found["rows"] if row["design"] == name}
        first = next(iter(rows.values()))
        at = [f"{rows[d]['mac_slot_pj']:.1f}" if d in rows else None for d in densities]
        body.append([f"`{name}`", first["cells"], f"{first['area_um2']:,.0f}", f"{first['critical_path_ns']:.2f}", *at])
    parts.append(table(heads, body))
    crossings = [
        [
            f"`{row['design']}`",
            f"`{row['twin']}`",
            f"{row['density']:.2f}",
            f"{row['area_overhead']:.1%}",
            None if row["published_area_overhead"] is None else f"{row['published_area_overhead']:.2%}",
        ]
        for row in found["break_even"]
    ]
    parts.append("Below this density the design takes less energy a MAC than its dense twin:\n")
    parts.append(table(["design", "dense twin", "density", "area overhead", "published (with memory)"], crossings))
    return "\n".join(parts)


def fields(entry: str) -> dict[str, str]:
    """Read the fields of one BibTeX entry; braces nest one deep there."""
    found = re.findall(r"(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}", entry)
    return {name.lower(): re.sub(r"[{}]", "", value) for name, value in found}


def title_of(key: str) -> str:
    """Title of a reference, or the key."""
    return escape(fields(bibliography().get(key, "")).get("title", key))


def references() -> str:
    """Return the bibliography, one anchor each."""
    parts = ["# References\n", "What the models, figures and tables cite; `sk.cite(result)` prints BibTeX of it.\n"]
    for key, entry in bibliography().items():
        facts = fields(entry)
        where = ", ".join(facts[name] for name in ("journal", "booktitle", "howpublished", "year") if name in facts)
        links = [f"[doi:{facts['doi']}](https://doi.org/{facts['doi']})"] if "doi" in facts else []
        links += [f"[arXiv:{facts['eprint']}](https://arxiv.org/abs/{facts['eprint']})"] if "eprint" in facts else []
        links += [f"<{facts['url']}>"] if "url" in facts and not links else []
        authors = escape(facts.get("author", "")).replace(" and ", "; ")
        parts.append(
            f"(ref-{key})=\n**{key}**. {authors}. *{escape(facts.get('title', ''))}*. {escape(where)}. "
            + " ".join(links)
            + "\n"
        )
    return "\n".join(parts)


def energy_tables() -> str:
    """Return every row of every energy table."""
    parts = ["# Energy tables\n", "Counts are stored and joules derived: another table is a multiplication.\n"]
    for name in hwmodels.list_tables():
        loaded = hwmodels.load_table(name)
        rows = []
        for key, row in loaded.rows.items():
            figure = row.energy
            ends = [f"{end:g}" for end in (figure.low, figure.high) if end is not None]
            node = f"{row.node_nm:g}" if row.node_nm else "off chip"
            rows.append(
                [
                    f"`{key}`",
                    f"{figure.value:g}" + (f" ({' … '.join(ends)})" if ends else ""),
                    row.per,
                    node,
                    figure.status,
                    source(figure.source),
                    escape(figure.note),
                ]
            )
        extends = f" Extends {', '.join(f'`{base}`' for base in loaded.extends)}." if loaded.extends else ""
        parts.append(f"## {escape(loaded.title)}\n\n`{name}` — {escape(loaded.description)}{extends}\n")
        parts.append(table(["row", "pJ", "per", "node (nm)", "status", "source", "note"], rows))
    return "\n".join(parts)


def tunings() -> str:
    """Return the ready-made tunings and what their methods state."""
    from traces.tuning import list_methods, list_tunings

    rows = [[f"`{entry.name}`", escape(entry.title), f"`{entry.method.name}`"] for entry in list_tunings()]
    parts = ["# Tunings\n", "Ready-made ones; a YAML file of your own works wherever a name does.\n"]
    parts.append(table(["name", "what it is", "method"], rows))
    for method in list_methods().values():
        parts.append(
            f"## {escape(method.title)}\n\n`{method.name}`, evidence: {method.evidence}. {escape(method.source)}\n"
        )
        parts.append(f"```text\n{method.equation}\n```\n\n{escape(method.notes)}\n")
    return "\n".join(parts)


METHODS = """# What tuning methods buy

Tuned, recorded, replayed and stored with their provenance: `simkit compare methods --model MODEL --stored` prints the
same, without `--stored` it runs them anew. Accuracy is the mean over seeds with its standard error (of the binomial
distribution where there is one seed); speed-up and energy are the whole model's against the untuned one, dense, on the
same design and text.
"""


def methods() -> str:
    """Return the stored comparisons of tuning methods."""
    from simkit.explore import methods
    from simkit.results import tables

    parts = [METHODS]
    for model in stored_models():
        rows = methods.stored_methods(model)
        objects, settings = methods.aggregate(rows), rows.attrs["settings"]
        per_seed = " or ".join(str(n) for n in sorted({item["seeds"] for item in objects}))
        facts = (
            f"Data set `{objects[0]['data']}`, {settings['samples']:,} training rows in one epoch (two where a tuning "
            f"starts from another); seeds: {per_seed}."
        )
        parts.append(f"## {model}\n\n{facts}\n")
        parts.append(f"![Accuracy against density of {model}'s tunings](methods-{model}.svg)\n")
        parts.append(tables.methods_table(methods.flat(objects)).to_markdown() + "\n")
    return "\n".join(parts)


def refit_rows() -> list[dict[str, Any]]:
    """Return what the benchmark of fitted down-projections has measured."""
    rows: list[dict[str, Any]] = json.loads(REFIT.read_text(encoding="utf-8"))["rows"]
    return rows


def refit() -> str:
    """Return the tables of swapped activations before any training: included in a how-to."""
    lines: dict[str, list[tuple[str, ...]]] = {"accuracy": [], "perplexity": []}
    for row in refit_rows():
        what = {None: "own", "relu": "ReLU", "untuned": "own, untuned"}.get(row["type"], f"threshold, {row['target']}")
        what += ", by contribution" if row.get("by") else ""
        what += f", slope {row['slope']}" if row.get("slope") else ""
        score = "perplexity" if "perplexity" in row else "accuracy"
        digits = 1 if score == "perplexity" else 3
        shown = f"{row[score]:.{digits}f} ± {row[f'{score}_se']:.{digits}f}"
        lines[score].append((row["model"], what, row["refit"] or "–", f"{row['density']:.3f}", shown))
    head = ("model", "activation", "refit", "density")
    return "\n\n".join(table((*head, score), found) for score, found in lines.items() if found)


HABITS = """
- `-q` hides progress and log, `-v` logs to stderr (`-vv` more); before or after the command's name.
- `NO_COLOR=1` keeps colours out (bold headings stay; a pipe gets plain text).
- `SIMKIT_DEBUG=1` shows where an error came from.
- `--set field=value` changes a field of a design; `--out` says where results go.
- A wrong name or option is answered with the nearest one.
- Ctrl-C: what tuning, recording, sweeping, searching and measuring have done is kept; the same command goes on there.
- `simkit --install-completion` lets the shell complete commands, options, and the names of designs, tables and figures
  (bash, zsh, fish, PowerShell; open a new shell after it). `simkit --show-completion` prints the script instead.
"""


def commands() -> str:
    """Return the help of every command, as it prints."""
    import click
    import typer

    from simkit import errors
    from simkit.cli import app

    parts = ["# Command line\n", "Results go to stdout, progress and messages to stderr; `--json` on every reader.\n"]
    parts.append(re.split(r"\n\n", getdoc(errors) or "", maxsplit=1)[1] + "\n")
    parts.append(HABITS)

    def visit(command: Any, path: str, parent: Any) -> None:
        context = click.Context(command, info_name=path.split()[-1], parent=parent, terminal_width=80)
        parts.append(f"## `{path}`\n\n```text\n{command.get_help(context)}\n```\n")
        for name, child in getattr(command, "commands", {}).items():
            visit(child, f"{path} {name}", context)

    visit(typer.main.get_command(app), "simkit", None)
    return "\n".join(parts)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    shutil.rmtree(here / "generated", ignore_errors=True)
    write(here / "generated", here.parent / "notebooks")
