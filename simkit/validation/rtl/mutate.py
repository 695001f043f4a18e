"""Seeded faults: each must be caught by the RTL tests, or the tests prove nothing.

``python -m simkit.validation.rtl.mutate [--out TABLE.md] [--only NAME]`` copies the packages and the tests, puts one
fault at a time into the copy, runs the tests of that design, and says which were caught. Exit code 1 if one was not.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError

ROOT = Path(__file__).resolve().parents[3]
RTL = "hwmodels/reference/rtl/"
KERNELS = "hwmodels/kernels/"
SHOWN = 160


class Mutation(NamedTuple):
    """A fault: in `file`, the one place where `before` stands becomes `after`; tests matching `tests` must fail."""

    name: str
    file: str
    before: str
    after: str
    tests: str


class Verdict(NamedTuple):
    """What the tests said of a fault."""

    mutation: Mutation
    caught: bool
    seconds: float
    first_failure: str


MUTATIONS = (
    Mutation(
        "TensorDash: two options look aside in the other's direction",
        RTL + "tensordash.sv",
        "SHIFT = 32'h20E3_10F0;",
        "SHIFT = 32'hF0E3_1020;",
        "tensordash",
    ),
    Mutation(
        "TensorDash: lanes choose in another order",
        RTL + "tensordash.sv",
        "64'hFE94_D83C_72B6_1A50",
        "64'hFEDC_BA98_7654_3210",
        "tensordash",
    ),
    Mutation(
        "TensorDash: rows do not wait for each other",
        RTL + "tensordash.sv",
        "for (int r = 0; r < ROWS; r++)\n                if (|left[h][r])",
        "for (int r = 0; r < 1; r++)\n                if (|left[h][r])",
        "tensordash",
    ),
    Mutation(
        "TensorDash: the window runs on into the next dot product",
        RTL + "tensordash.sv",
        "if (slot[1:0] >= kept && !ends_next && in_valid[take])",
        "if (slot[1:0] >= kept && in_valid[take])",
        "tensordash",
    ),
    Mutation(
        "TensorDash: a multiplied element is not removed",
        RTL + "tensordash.sv",
        "SHIFT[4*option+:4]] = 1'b0;",
        "SHIFT[4*option+:4]] = option == 7;",
        "tensordash",
    ),
    Mutation(
        "Cnvlutin: no barrier between rows",
        RTL + "cnvlutin.sv",
        "wire                         barrier = open && &ending;",
        "wire                         barrier = open && |ending;",
        "cnvlutin",
    ),
    Mutation(
        "Cnvlutin: an empty brick costs two cycles",
        RTL + "cnvlutin.sv",
        "wire               last = {1'b0, slot} + 1'b1 >= count;",
        "wire               last = {1'b0, slot} + 1'b1 >= (count == '0 ? 5'd2 : count);",
        "cnvlutin",
    ),
    Mutation(
        "Cnvlutin: the synapse of the slot, not of the offset",
        RTL + "cnvlutin.sv",
        "sb_offset[l] <= nm_offset[l];",
        "sb_offset[l] <= nm_slot[l] | (nm_offset[l] & 4'd0);",
        "cnvlutin",
    ),
    Mutation(
        "Systolic: one cycle of skew missing",
        RTL + "systolic.sv",
        "ws_skew #(.DEPTH(r)",
        "ws_skew #(.DEPTH(r > 1 ? r - 1 : r)",
        "systolic",
    ),
    Mutation(
        "Systolic: a fold ends one cycle early",
        RTL + "systolic.sv",
        "tokens + 2 * ROWS + COLS - 2;",
        "tokens + 2 * ROWS + COLS - 3;",
        "systolic",
    ),
    Mutation(
        "EIE: no bubble at the end of a row",
        RTL + "eie.sv",
        "left == {1'b1, {(PES - 1){1'b0}}}));",
        "(left & (left - 1'b1)) == '0));",
        "eie",
    ),
    Mutation(
        "EIE: one usable slot fewer in the queue",
        RTL + "eie.sv",
        "assign full = tail + 1'b1 == head;",
        "assign full = tail + 1'b1 == head || (RING > 2 && tail + SLOT'(2) == head);",
        "eie",
    ),
    Mutation(
        "EIE: an empty column takes no cycle away from the next",
        RTL + "eie.sv",
        "wire              pop     = left == '0 && !empty;",
        "wire              pop     = left <= ENTRY'(1) && !empty && !(left == ENTRY'(1) && RING == 2);",
        "eie",
    ),
    Mutation(
        "EIE: no bypass around the last sum",
        RTL + "eie.sv",
        "(valid4 && row4 == row3 ? sum4 : read3) + product3;",
        "read3 + product3;",
        "eie",
    ),
    Mutation(
        "SparTen: no barrier between rows",
        RTL + "sparten.sv",
        "wire                          barrier = open && &ending;",
        "wire                          barrier = open && |ending;",
        "sparten",
    ),
    Mutation(
        "SparTen: chunks without a match cost a cycle",
        RTL + "sparten.sv",
        "todo[i] <= |(in_mask[i] & filter[i]);",
        "todo[i] <= |in_mask[i];",
        "sparten",
    ),
    Mutation(
        "SparTen: the prefix count includes the element itself",
        RTL + "sparten.sv",
        "wire [CHUNK-1:0] below     = lowest - 1'b1;",
        "wire [CHUNK-1:0] below     = lowest | (lowest - 1'b1);",
        "sparten",
    ),
    Mutation(
        "Cnvlutin kernel: lanes do not wait for the slowest",
        KERNELS + "cnvlutin.py",
        "slowest = max(slowest, lane_cost[lane])",
        "slowest = lane_cost[lane]",
        "cnvlutin",
    ),
    Mutation(
        "TensorDash kernel: the window advances by two steps at most",
        KERNELS + "tensordash.py",
        "while advance < depth:",
        "while advance < depth - 1:",
        "tensordash",
    ),
    Mutation(
        "SparTen kernel: the last CU decides, not the slowest",
        KERNELS + "sparten.py",
        "slowest = max(slowest, done)",
        "slowest = done",
        "sparten",
    ),
    Mutation(
        "EIE kernel: one slot more in the queue",
        KERNELS + "eie.py",
        "history[slot] + 1)",
        "history[slot])",
        "eie",
    ),
    Mutation(
        "EIE kernel: no bubble at the end of a row",
        KERNELS + "eie.py",
        "scan += 0 if full_tail else 1",
        "scan += 0",
        "eie",
    ),
)


def run_mutations(chosen: Sequence[Mutation] = MUTATIONS) -> list[Verdict]:
    """Put each fault into a copy of the tree and run the tests.

    Raises
    ------
    InputError
        If a fault's text is not there exactly once, or the tests fail without any fault.
    """
    with tempfile.TemporaryDirectory(prefix="zeroskip-mutate-") as folder:
        tree = Path(folder) / "tree"
        for part in ("hwmodels", "simkit", "traces", "tests/rtl"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for design in sorted({mutation.tests for mutation in chosen}):
            failed, _ = _run_tests(tree, design)
            if failed:
                raise InputError(f"the tests of '{design}' fail without a fault ({failed}); mend them first")
        return [_try(tree, mutation) for mutation in chosen]


def _try(tree: Path, mutation: Mutation) -> Verdict:
    path = tree / mutation.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(mutation.before) != 1:
        raise InputError(
            f"fault '{mutation.name}': its text stands {whole.count(mutation.before)} times in {mutation.file}, "
            "must be once; adapt the fault to the source"
        )
    path.write_text(whole.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        failed, seconds = _run_tests(tree, mutation.tests)
    finally:
        path.write_text(whole, encoding="utf-8")
    return Verdict(mutation, bool(failed), seconds, failed)


def _run_tests(tree: Path, design: str) -> tuple[str, float]:
    """Run the tests of a design; return the first failure, empty where all passed, and how long it took."""
    quiet = ["-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "tests/rtl/test_cycles.py", *quiet]
    command += ["-k", f"{design} and kernel_equals_rtl"]
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    # tests that were all skipped (no Verilator) end well, too
    if done.returncode != 1 and not (done.returncode == 0 and " passed" in done.stdout):
        raise InputError(
            f"the tests of '{design}' could not be run: {done.stdout[-300:].strip() or done.stderr[-300:]}"
        )
    if done.returncode == 0:
        return "", seconds
    lines = [line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED"))]
    first = lines[0].removeprefix("E").strip() if lines else "failed"
    if "UnavailableError" in first:
        raise InputError(f"the fault in '{design}' does not build, so no test has seen it: {first[:300]}")
    differing = re.search(r"\d+ of \d+ cases differ", first)
    return differing[0] if differing else first[:SHOWN], seconds


def table(verdicts: Sequence[Verdict]) -> str:
    """Write the verdicts as a Markdown table."""
    rows = ["| fault | file | caught | by |", "|---|---|---|---|"]
    for verdict in verdicts:
        caught = "yes" if verdict.caught else "NO"
        because = verdict.first_failure.replace("|", "\\|")
        rows.append(f"| {verdict.mutation.name} | {Path(verdict.mutation.file).name} | {caught} | {because} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m simkit.validation.rtl.mutate", description="Seed faults; tests must catch all."
    )
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--only", default="", help="only faults whose name contains this text")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if options.only.lower() in mutation.name.lower()]
    try:
        verdicts = run_mutations(chosen)
    except InputError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return wrong.exit_code
    text = table(verdicts)
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0 if verdicts and all(verdict.caught for verdict in verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
