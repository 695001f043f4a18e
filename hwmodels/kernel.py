"""The contract of a kernel: its name, wrapper, slow twin, parameters and what it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .arch import Arch
from .counts import Compute
from .mapping.space import Dataflow
from .op import Op


def one_by_one(params: Any, op: Op, side: str) -> tuple[int, int]:
    """Granule of a design that takes the non-zeros of an operand one at a time."""
    return 1, 1


@dataclass(frozen=True)
class DensityBaseline:
    """What a density-only model knows of a kernel; see `hwmodels.statistical`.

    Parameters
    ----------
    granule : callable
        ``granule(params, op, side) -> (tile, step)``: elements of an operand's column that are taken `step` at a time
        from tiles of `tile` rows; step 1 where non-zeros are taken one by one.
    most : callable
        ``most(params) -> int``: the largest speed-up that the window of the design allows; 0 for no such limit.
    """

    granule: Callable[[Any, Op, str], tuple[int, int]] = one_by_one
    most: Callable[[Any], int] = lambda params: 0


ONE_BY_ONE = DensityBaseline()


@dataclass(frozen=True)
class Kernel:
    """A kernel family.

    Parameters
    ----------
    name : str
        What an arch's ``kernel`` field says.
    params : type
        NamedTuple of the parameters; its fields are exactly the arch's ``params``.
    count : callable
        ``count(op, params, arch) -> Compute``: the public wrapper, validates and loops.
    twin : callable
        ``twin(op, params, arch) -> int``: compute cycles, cycle by cycle from the definition.
    skips : frozenset
        Which operands' zeros change the cycles: any of ``activation``, ``weight``, ``output``.
    two_sided : bool
        Whether a weight mask is required.
    overhead : callable
        ``overhead(op, params) -> int``: cycles that skipping may add over dense (start-up, bubbles).
    token_order_free : bool
        Whether permuting tokens leaves the cycles alone.
    has_cycles : bool
        False for estimates that only price energy.
    additive : bool
        Whether launches, and copies of an op, add up; False where averages over a trace or batched copies enter.
    baseline : DensityBaseline, optional
        What a density-only model would count, for the synchronisation gap; `ONE_BY_ONE` for a design that takes
        non-zeros one at a time. Without it, the gap of the kernel is refused.
    waits_in : str
        Arch that shows the waiting of this family's rows, lanes, PEs or tiles in the gap figure; empty where none wait.
    dataflow : callable
        ``dataflow(params) -> Dataflow``: what the design fixes about tiles and loop orders, within which the mapping
        of an op is searched; nothing by default.

    Examples
    --------
    >>> from hwmodels.registry import kernels
    >>> sorted(kernels()["cnvlutin"].skips)
    ['activation', 'output']
    """

    name: str
    params: type
    count: Callable[[Op, Any, Arch], Compute]
    twin: Callable[[Op, Any, Arch], int]
    skips: frozenset[str]
    two_sided: bool = False
    overhead: Callable[[Op, Any], int] = lambda op, params: 0
    token_order_free: bool = True
    has_cycles: bool = True
    additive: bool = True
    baseline: DensityBaseline | None = None
    waits_in: str = ""
    dataflow: Callable[[Any], Dataflow] = lambda params: Dataflow()
