"""Every kernel against fp64 on fresh operands, in Triton's interpreter, its output poisoned first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from simkit.errors import InputError, UnavailableError
from simkit.measure import variants
from simkit.measure.variants import CheckError, Problem, Variant, build, check, problem

pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = pytest.mark.triton

RAGGED = {
    "dense": (4, 300, 70),
    "dense_shrunk": (4, 300, 70),
    "pack": (3, 1100, 8),
    "gather_gemv": (1, 1300, 300),
    "gate_up_gather": (1, 200, 96),
    "mask_gemv": (1, 333, 300),
    "csr": (4, 300, 70),
}


def fresh(m: int, k: int, n: int, density: float = 0.2, dtype: torch.dtype = torch.float32) -> Problem:
    return problem(m, k, n, density, device="cpu", dtype=dtype, seed=int(np.random.default_rng().integers(1 << 31)))


@pytest.mark.parametrize("name", RAGGED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_kernel_is_its_reference(name: str, dtype: torch.dtype) -> None:
    if name == "csr" and dtype == torch.bfloat16:
        with pytest.raises(UnavailableError, match="no bf16 on a CPU"):
            build(name, fresh(*RAGGED[name], dtype=dtype))
        return
    assert check(name, build(name, fresh(*RAGGED[name], dtype=dtype))) < 1e-2


@pytest.mark.parametrize(
    ("name", "m", "k", "n"),
    [("gather_gemv", 5, 130, 90), ("gate_up_gather", 7, 70, 48), ("tile_skip_gemm", 70, 150, 140), ("bsr", 16, 64, 32)],
)
def test_kernels_that_multiply_matrices(name: str, m: int, k: int, n: int) -> None:
    assert check(name, build(name, fresh(m, k, n))) < 1e-5


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("name", ["gather_gemv", "mask_gemv"])
def test_ends_of_density(name: str, density: float) -> None:
    assert check(name, build(name, fresh(1, 130, 40, density))) < 1e-5


def test_gather_repeats_to_the_bit() -> None:
    made = build("gather_gemv", fresh(1, 500, 64))
    made.run()
    first = made.out.clone()
    made.out.fill_(float("nan"))
    made.run()
    assert torch.equal(first, made.out)


def test_compaction_lists_the_union_in_order() -> None:
    p = fresh(3, 2500, 4, 0.05)
    found = variants._compaction(p.x)
    found.run()
    wanted = p.mask.any(dim=0).nonzero().squeeze(1)
    assert int(found.total) == len(wanted)
    assert torch.equal(found.index[: len(wanted)].long(), wanted)


def test_tile_skip_really_passes_over_blocks() -> None:
    p = fresh(64, 256, 32)
    p.x[:, 64:128] = 0
    made = build("tile_skip_gemm", Problem(p.x, p.w, p.x != 0))
    p.w[64:128] = float("nan")  # read, these rows would spoil every output
    made.run()
    assert torch.isfinite(made.out).all()


def test_a_token_tile_without_a_non_zero_is_zero() -> None:
    p = fresh(200, 256, 32, 1.0)
    p.x[:128] = 0  # the whole first tile
    p.x[128:, 64:] = 0
    made = build("tile_skip_gemm", Problem(p.x, p.w, p.x != 0))
    assert check("tile_skip_gemm", made) < 1e-5
    assert not made.out[:128].any()


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from simkit.measure import kernels

types = dict.fromkeys(("x", "weight", "out"), "*bf16") | dict.fromkeys(("listing", "count"), "*i32")
numbers = dict.fromkeys(("m", "n", "k", "blocks"), "i32")
fixed = {"rows": 128, "columns": 128, "width": 64, "stages": kernels.TILE_STAGES}
names = kernels.tile_skip.arg_names
signature = {name: {**types, **numbers}.get(name, "constexpr") for name in names}
aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in ("x", "weight", "out", "n", "k")}
made = compile(
    ASTSource(kernels.tile_skip, signature, fixed, aligned),
    target=GPUTarget("cuda", CAPABILITY, 32),
    options={"num_warps": 8},
)
text = made.asm["ttgir"]
print(text.count("async_copy_global_to_local"), text.count("scf.if"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_tile_skip_loads_ahead_of_the_product(capability: int, tmp_path: Path) -> None:
    """Compiled for a GPU that need not be here: operands are fetched asynchronously, and no branch is in the way."""
    pytest.importorskip("triton.backends.nvidia", reason="Triton has no NVIDIA back end here")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    code = COMPILE.replace("CAPABILITY", str(capability))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-500:]
    copies, branches = map(int, done.stdout.split())
    assert copies >= 2 * 2  # both operands, before the loop and in it
    assert branches == 0


def test_gather_never_reads_rows_that_are_not_needed() -> None:
    p = fresh(1, 300, 32, 0.1)
    made = build("gather_gemv", p)
    p.w[~p.mask[0]] = float("nan")
    made.run()
    assert torch.isfinite(made.out).all()


def test_a_wrong_kernel_is_caught_and_named() -> None:
    reference = torch.ones(2, 2, dtype=torch.float64)
    out = torch.empty(2, 2)
    with pytest.raises(CheckError, match="kernel 'idle' is off by nan"):
        check("idle", Variant(lambda: None, out, reference))
    with pytest.raises(CheckError, match="at most 1e-04"):
        check("scaled", Variant(lambda: out.fill_(1.001), out, reference))
    assert check("right", Variant(lambda: out.fill_(1.0), out, reference)) == 0


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(InputError, match="unknown kernel 'gather_gem'; did you mean 'gather_gemv'"):
        build("gather_gem", fresh(1, 64, 8))
    with pytest.raises(InputError, match="at most 16 tokens"):
        build("gather_gemv", fresh(17, 64, 8))
    with pytest.raises(InputError, match="for one token"):
        build("mask_gemv", fresh(2, 64, 8))
    with pytest.raises(UnavailableError, match="CUDA"):
        build("semi_structured", fresh(16, 64, 16))
    with pytest.raises(UnavailableError, match="multiples of 16"):
        build("bsr", fresh(3, 64, 16))
    with pytest.raises(InputError, match="mask has shape"):
        problem(2, 64, 8, 0.5, device="cpu", mask=torch.ones(1, 64, dtype=torch.bool))


def test_no_triton_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="Triton is not installed"):
        build("gather_gemv", fresh(1, 64, 8))
