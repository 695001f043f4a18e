"""The space of mappings of one launch of a GEMM onto buffers: tiles, loop order, what stays, what is doubled.

A launch ``Y[M, N] = X[M, K] W[K, N]`` is cut into tiles of m x k x n, walked by three loops in one of six orders. Each
operand depends on two of the loops; the third one reuses it. With t tiles along each dimension, an operand of which
``inner`` tiles lie inside its reusing loop r

- passes through, with room for one tile: it is loaded ``t_r`` times where ``inner > 1``, once otherwise;
- or stays, with room for the slice that r reuses (all of it along loops inside r, one tile along loops outside):
  it is loaded once.

A partial sum that neither stays nor finishes in one visit spills: v visits write it v times and read it v - 1 times.

An operand with room for one tile more is double-buffered: its next tile comes while this one is used, and only the
first tile is waited for. Otherwise what overwrites data in use is waited for: every tile of an operand that passes
through, the first tile of each slice of one that stays. So a mapping has, for each operand, its traffic (in passes
over the operand) and the part of it that nothing hides. `operand_cost` states both in closed form; a loop nest walked
step by step gives the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from ..counting.jit import jit

ORDERS = ("mkn", "mnk", "kmn", "knm", "nmk", "nkm")
WHOLE = 0


class Dataflow(NamedTuple):
    """What a published design fixes about the loops around its array.

    Parameters
    ----------
    rows, reduction, outputs : int
        Tokens, elements of K and outputs that the array takes at once; `WHOLE` for all of a launch. Tiles are
        multiples of them, or a half, a quarter ... of one, which the array puts together.
    orders : tuple of str
        Loop orders allowed, outermost first.
    splits_k : bool
        Whether the array's cycles stay as they are when K is cut for a tile larger than the array takes at once (no
        barrier at the end of a dot product, no window across the cut). Otherwise K is cut only where the array's own
        accumulators hold the sums meanwhile: K innermost, at most `rows` x `outputs` at once.
    """

    rows: int = 1
    reduction: int = 1
    outputs: int = 1
    orders: tuple[str, ...] = ORDERS
    splits_k: bool = True

    def grain(self, m: int, k: int, n: int) -> tuple[int, int, int]:
        """Return what the array takes at once of a launch of this shape."""
        wanted = zip((self.rows, self.reduction, self.outputs), (m, k, n), strict=True)
        granted = [size if one == WHOLE else min(one, size) for one, size in wanted]
        return granted[0], granted[1], granted[2]


class Mapping(NamedTuple):
    """How a launch is cut.

    Parameters
    ----------
    tile : (int, int, int)
        m, k, n of a tile.
    order : str
        Loops, outermost first, e.g. ``"nkm"``.
    stays, doubled : frozenset of str
        Operands (activation, weight, output) kept over the loop that reuses them, and double-buffered ones.
    """

    tile: tuple[int, int, int]
    order: str
    stays: frozenset[str] = frozenset()
    doubled: frozenset[str] = frozenset()


class Share(NamedTuple):
    """What one operand comes to under a mapping.

    Parameters
    ----------
    elements : int
        Room it takes, elements.
    visits : int
        Passes over the operand: times each element is loaded, or an output is worked on.
    exposed : float
        What nothing hides: passes over an input, or the share of an output's traffic.
    """

    elements: int
    visits: int
    exposed: float


def sizes(size: int, grain: int) -> list[int]:
    """Tile sizes worth trying along one dimension: for each number of tiles the least multiple of the grain, then less.

    A larger tile with as many tiles has the same traffic, takes more room and a longer first fill. The halves, quarters
    ... of a grain come last: where they are no better, a tile that the array takes at once stands.
    """
    grain = min(grain, size)
    blocks = -(-size // grain)
    found = sorted({min(size, grain * -(-blocks // count)) for count in range(1, blocks + 1)})
    while grain > 1:
        grain = -(-grain // 2)
        found.append(grain)
    return found


@jit
def operand_cost(relevant, reusing, shape, tile, grain, place, stays, doubled, output):  # type: ignore[no-untyped-def]
    """Elements held, visits and exposed passes of one operand.

    `relevant` are its two dimensions, `reusing` the third; `place` is the position of each dimension's loop.
    """
    held = elements = inner = outer = 1
    first_tile = first_of_slice = 1.0
    for dimension in relevant:
        trips = -(-shape[dimension] // tile[dimension])
        part = min(max(tile[dimension], grain[dimension]), shape[dimension]) / shape[dimension]
        first_tile *= part
        elements *= tile[dimension]
        if place[dimension] > place[reusing]:
            inner *= trips
            first_of_slice *= part
            held *= shape[dimension]
        else:
            outer *= trips
            held *= tile[dimension]
    again = -(-shape[reusing] // tile[reusing]) if inner > 1 else 1
    if inner * outer == 1:
        return elements, 1, 0.0 if output else 1.0
    if stays and again > 1:
        hidden = doubled or outer == 1
        exposed = first_tile if hidden else first_of_slice
        if output and hidden:
            exposed = 0.0
        return held + (elements if doubled and outer > 1 else 0), 1, exposed
    if doubled:
        return 2 * elements, again, 0.0 if output else first_tile
    return elements, again, 1.0 if output else 1.0 * again


@jit
def output_passes(visits, partial_sum, output):  # type: ignore[no-untyped-def]
    """Traffic of an output over its finished bytes: v - 1 partial sums written and read again, and the last write."""
    return 1.0 + (visits - 1) * 2.0 * partial_sum / output


# dimensions that each operand depends on, and the one that reuses it; m, k, n are 0, 1, 2
RELEVANT = {"activation": (0, 1), "weight": (1, 2), "output": (0, 2)}
REUSING = {"activation": 2, "weight": 0, "output": 1}


def places(order: str) -> tuple[int, int, int]:
    """Position of the m, k and n loop in an order."""
    return order.index("m"), order.index("k"), order.index("n")


@jit
def k_is_cut_in_the_array(shape, tile, grain, place):  # type: ignore[no-untyped-def]
    """Whether the array's own accumulators hold the sums of a cut K: K innermost, and no more outputs than it takes."""
    inside = 1
    for dimension in (0, 2):
        if place[dimension] > place[1]:
            inside *= -(-shape[dimension] // tile[dimension])
    return inside == 1 and tile[0] <= grain[0] and tile[2] <= grain[2]


@jit
def holds_partial_sums(shape, tile, grain, place):  # type: ignore[no-untyped-def]
    """Whether the output's buffer holds sums that are not finished."""
    return tile[1] < shape[1] and not k_is_cut_in_the_array(shape, tile, grain, place)


def share_of(operand: str, shape: tuple[int, int, int], grain: tuple[int, int, int], mapping: Mapping) -> Share:
    """Closed form of what one operand comes to; see the module."""
    elements, visits, exposed = operand_cost(
        RELEVANT[operand],
        REUSING[operand],
        shape,
        mapping.tile,
        grain,
        places(mapping.order),
        operand in mapping.stays,
        operand in mapping.doubled,
        operand == "output",
    )
    return Share(int(elements), int(visits), float(exposed))
