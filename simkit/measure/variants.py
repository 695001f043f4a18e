"""Every way to multiply a sparse activation by a weight, ready to be checked and timed.

A `Problem` holds fresh random operands; a variant turns it into a function without arguments that can be captured in
a CUDA graph, and an output that can be poisoned. Each is checked against an fp64 product before it is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwmodels.errors import nearest

from ..errors import InputError, UnavailableError

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
OUTPUT_COLUMNS = 256


class CheckError(RuntimeError):
    """A kernel whose result differs from the fp64 reference: it is not timed."""

    exit_code = 1


@dataclass(frozen=True, eq=False)
class Problem:
    """``y[M, N] = x[M, K] w[K, N]``; for a gated MLP also the gate's output and the rows of up.

    Parameters
    ----------
    x : Tensor[M, K]
        Activations with exact zeros; at least one non-zero.
    w : Tensor[K, N]
        Weights, one row an input.
    mask : BoolTensor[M, K]
        Where x is not zero.
    """

    x: Tensor
    w: Tensor
    mask: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, K, N)."""
        return self.x.shape[0], self.x.shape[1], self.w.shape[1]


class Variant(NamedTuple):
    """Something to time: ``run()`` writes ``out``; ``reference`` is what it should hold, in fp64."""

    run: Callable[[], object]
    out: Tensor
    reference: Tensor


def problem(
    m: int, k: int, n: int, density: float, *, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 0,
    mask: Tensor | None = None,
) -> Problem:  # fmt: skip
    """Draw operands: Bernoulli zeros of the given density, or a recorded mask.

    Raises
    ------
    InputError
        If the mask has another shape.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    if mask is None:
        mask = torch.rand((m, k), generator=generator, device=device) < density
    mask = mask.to(device)
    if tuple(mask.shape) != (m, k):
        raise InputError(f"mask has shape {tuple(mask.shape)}, but M = {m}, K = {k}")
    if not bool(mask.any()):
        mask[0, 0] = True
    value = torch.randn((m, k), generator=generator, device=device)
    value = torch.where(value.abs() < 1e-2, torch.full_like(value, 0.5), value) * mask
    weight = torch.randn((k, n), generator=generator, device=device) / k**0.5
    return Problem(value.to(dtype), weight.to(dtype), mask)


def _result(p: Problem) -> tuple[Tensor, Tensor]:
    out = torch.empty((p.x.shape[0], p.w.shape[1]), device=p.x.device, dtype=p.x.dtype)
    return out, p.x.double() @ p.w.double()


def _dense(p: Problem) -> Variant:
    out, reference = _result(p)
    return Variant(lambda: torch.mm(p.x, p.w, out=out), out, reference)


def _shrunk(p: Problem) -> Variant:
    out, reference = _result(p)
    keep = p.mask.any(dim=0).nonzero().squeeze(1)
    x, w = p.x[:, keep].contiguous(), p.w[keep].contiguous()
    return Variant(lambda: torch.mm(x, w, out=out), out, reference)


def _no_bf16_here(p: Problem, what: str) -> None:
    if p.x.device.type == "cpu" and p.x.dtype == torch.bfloat16:
        raise UnavailableError(f"{what} has no bf16 on a CPU; give dtype=torch.float32")


def _compressed(make: Callable[[], Tensor]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse .* support is in beta", category=UserWarning)
        return make()


def _csr(p: Problem) -> Variant:
    _no_bf16_here(p, "csr")
    out, reference = _result(p)
    x = _compressed(p.x.to_sparse_csr)
    return Variant(lambda: out.copy_(x @ p.w), out, reference)


def _bsr(p: Problem) -> Variant:
    m, k, _ = p.shape
    side = 16
    if m % side or k % side:
        raise UnavailableError(f"bsr needs M and K in multiples of {side}, not {m} and {k}")
    _no_bf16_here(p, "bsr")
    out, reference = _result(p)
    x = _compressed(lambda: p.x.to_sparse_bsr((side, side)))
    return Variant(lambda: out.copy_(x @ p.w), out, reference)


def _semi_structured(p: Problem) -> Variant:
    if p.x.device.type != "cuda":
        raise UnavailableError("semi_structured needs a CUDA device with 2:4 tensor cores")
    pairs = p.w.t().contiguous().view(-1, 4)
    keep = torch.zeros_like(pairs, dtype=torch.bool).scatter_(1, pairs.abs().topk(2, dim=1).indices, True)
    pruned = (pairs * keep).view(p.w.shape[1], p.w.shape[0])
    rows = -(-p.x.shape[0] // 16) * 16
    x = torch.zeros((rows, p.x.shape[1]), device=p.x.device, dtype=p.x.dtype)
    x[: p.x.shape[0]] = p.x
    weight = torch.sparse.to_sparse_semi_structured(pruned)
    out, _ = _result(p)
    reference = p.x.double() @ pruned.t().double()
    return Variant(lambda: out.copy_(torch.nn.functional.linear(x, weight)[: len(out)]), out, reference)


def _triton() -> Any:
    if find_spec("triton") is None:
        raise UnavailableError("Triton is not installed; pip install 'zeroskip[gpu]'")
    from . import kernels

    return kernels


class _Compaction(NamedTuple):
    run: Callable[[], None]
    index: Tensor
    total: Tensor


def _compaction(x: Tensor, threshold: float = 0.0) -> _Compaction:
    kernels = _triton()
    m, k = x.shape
    block = kernels.COMPACT_BLOCK
    blocks = -(-k // block)
    counts = torch.empty(blocks, device=x.device, dtype=torch.int32)
    index = torch.empty(k, device=x.device, dtype=torch.int32)
    total = torch.empty(1, device=x.device, dtype=torch.int32)
    tokens, most = _power(m), _power(blocks)

    def run() -> None:
        kernels.count_active[(blocks,)](x, counts, k, m, threshold, max_tokens=tokens, block=block)
        kernels.write_active[(blocks,)](
            x, counts, index, total, k, m, threshold, blocks, max_tokens=tokens, max_blocks=most, block=block
        )

    return _Compaction(run, index, total)


def _power(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()


def _few_tokens(p: Problem, name: str) -> int:
    """Tokens as the kernel pads them: one stays one, more go to the tensor cores' 16."""
    kernels = _triton()
    m = p.shape[0]
    if m > kernels.MAX_TOKENS:
        raise InputError(f"{name} is for at most {kernels.MAX_TOKENS} tokens a launch, not {m}; use tile_skip_gemm")
    if m > 1:
        _no_bf16_here(p, "a matrix product in Triton's interpreter")
    return 1 if m == 1 else 16


def _gather_launch(
    x: Tensor, found: _Compaction, w: Tensor, out: Tensor, padded: int, compact: bool
) -> Callable[[], None]:
    kernels = _triton()
    k, n = w.shape
    m, rows = x.shape[0], kernels.GATHER_ROWS
    parts = -(-k // rows)
    partial = torch.empty((parts, m, n), device=x.device, dtype=torch.float32)
    columns = min(OUTPUT_COLUMNS, _power(n))

    def run() -> None:
        kernels.gather_partial[(-(-n // columns), parts)](
            x, found.index, found.total, w, partial, k, n, m,
            compact=compact, max_tokens=padded, rows=rows, step=16, columns=columns,
        )  # fmt: skip
        kernels.reduce_partial[(-(-n // 32), m)](
            partial, found.total, out, n, m, rows=rows, max_parts=_power(parts), columns=32
        )

    return run


def _gather_gemv(p: Problem) -> Variant:
    padded = _few_tokens(p, "gather_gemv")
    out, reference = _result(p)
    found = _compaction(p.x)
    launch = _gather_launch(p.x, found, p.w, out, padded, compact=False)

    def run() -> None:
        found.run()
        launch()

    return Variant(run, out, reference)


def _gate_up_gather(p: Problem) -> Variant:
    """Gated MLP on the needed neurons: x of the problem is the gate's output, W the down-projection."""
    kernels = _triton()
    padded = _few_tokens(p, "gate_up_gather")
    m, d_ff, d_model = p.shape
    device = p.x.device
    generator = torch.Generator(device=device).manual_seed(d_ff + d_model)
    hidden_in = torch.randn((m, d_model), generator=generator, device=device).to(p.x)
    up = (torch.randn((d_ff, d_model), generator=generator, device=device) / d_model**0.5).to(p.x)
    out, _ = _result(p)
    found = _compaction(p.x)
    hidden = torch.empty((m, d_ff), device=p.x.device, dtype=p.x.dtype)
    launch = _gather_launch(hidden, found, p.w, out, padded, compact=True)
    rows, step = 16, min(256, max(16, _power(d_model)))

    def run() -> None:
        found.run()
        kernels.gate_up[(-(-d_ff // rows),)](
            hidden_in, p.x, found.index, found.total, up, hidden, d_model, d_ff, m,
            max_tokens=padded, rows=rows, steps=-(-d_model // step), step=step,
        )  # fmt: skip
        launch()

    product = p.x.double() * (hidden_in.double() @ up.double().t())
    return Variant(run, out, product @ p.w.double())


def _mask_gemv(p: Problem) -> Variant:
    kernels = _triton()
    m, k, n = p.shape
    if m != 1:
        raise InputError(f"mask_gemv is for one token, not {m}; use gather_gemv")
    out, reference = _result(p)
    rows, columns = kernels.GATHER_ROWS, min(OUTPUT_COLUMNS, _power(n))
    parts = -(-k // rows)
    partial = torch.empty((parts, 1, n), device=p.x.device, dtype=torch.float32)
    every = torch.full((1,), k, device=p.x.device, dtype=torch.int32)

    def run() -> None:
        kernels.mask_partial[(-(-n // columns), parts)](
            p.x, p.w, partial, k, n, 0.0, rows=rows, step=16, columns=columns
        )
        kernels.reduce_partial[(-(-n // 32), 1)](
            partial, every, out, n, 1, rows=rows, max_parts=_power(parts), columns=32
        )

    return Variant(run, out, reference)


def _tile_skip_gemm(p: Problem, width: int = 64) -> Variant:
    kernels = _triton()
    _no_bf16_here(p, "a matrix product in Triton's interpreter")
    m, k, n = p.shape
    out, reference = _result(p)
    rows, columns = (64 if m <= 64 else 128), 128
    tiles, blocks = -(-m // rows), -(-k // width)
    live, listing = (torch.empty((tiles, blocks), device=p.x.device, dtype=torch.int32) for _ in range(2))
    count = torch.empty(tiles, device=p.x.device, dtype=torch.int32)

    def run() -> None:
        kernels.flag_blocks[(tiles, blocks)](p.x, live, m, k, blocks, rows=rows, width=width)
        kernels.list_live[(tiles,)](live, listing, count, blocks, max_blocks=_power(blocks))
        kernels.tile_skip[(tiles, -(-n // columns))](
            p.x, p.w, listing, count, out, m, n, k, blocks, rows=rows, columns=columns, width=width,
            stages=kernels.TILE_STAGES, num_warps=rows // 16,
        )  # fmt: skip

    return Variant(run, out, reference)


def _pack(p: Problem) -> Variant:
    kernels = _triton()
    flat = p.x.reshape(-1)
    words = -(-flat.numel() // 32)
    out = torch.empty(words, device=flat.device, dtype=torch.int32)
    bits = torch.zeros(words * 32, dtype=torch.int64, device=flat.device)
    bits[: flat.numel()] = p.mask.reshape(-1)
    weights = torch.tensor([1 << i for i in range(32)], dtype=torch.int64, device=flat.device)
    packed = (bits.view(words, 32) * weights).sum(dim=1)
    reference = torch.where(packed >= 1 << 31, packed - (1 << 32), packed).double()

    def run() -> None:
        kernels.pack_words[(-(-words // 64),)](flat, out, flat.numel(), 0.0, block=64)

    return Variant(run, out, reference)


VARIANTS: dict[str, Callable[[Problem], Variant]] = {
    "dense": _dense,
    "dense_shrunk": _shrunk,
    "pack": _pack,
    "gather_gemv": _gather_gemv,
    "gate_up_gather": _gate_up_gather,
    "mask_gemv": _mask_gemv,
    "tile_skip_gemm": _tile_skip_gemm,
    "semi_structured": _semi_structured,
    "csr": _csr,
    "bsr": _bsr,
}


def build(name: str, p: Problem) -> Variant:
    """Make a variant ready to run.

    Raises
    ------
    InputError
        If there is none of that name, or it does not take this many tokens.
    UnavailableError
        If Triton or a device it needs is missing.
    """
    if name not in VARIANTS:
        raise InputError(f"unknown kernel '{name}'" + nearest(name, VARIANTS))
    return VARIANTS[name](p)


def check(name: str, variant: Variant) -> float:
    """Poison the output, run, and compare with fp64.

    Parameters
    ----------
    name : str
        For the message.
    variant : Variant
        Its output is overwritten with NaN (integers: a pattern) first, so an element left unwritten shows.

    Returns
    -------
    float
        ``|out - reference| / |reference|``.

    Raises
    ------
    CheckError
        If it is above `TOLERANCE` of the output's type, or not a number.
    """
    whole = variant.out.dtype == torch.int32
    variant.out.fill_(0x5A5A5A5A if whole else float("nan"))
    variant.run()
    if variant.out.device.type == "cuda":
        torch.cuda.synchronize()
    scale = max(float(variant.reference.norm()), 1e-30)
    error = float((variant.out.double() - variant.reference).norm()) / scale
    most = 0.0 if whole else TOLERANCE[variant.out.dtype]
    if not error <= most:
        raise CheckError(
            f"kernel '{name}' is off by {error:.2e} of the fp64 reference, at most {most:.0e}; it is not timed"
        )
    return error
