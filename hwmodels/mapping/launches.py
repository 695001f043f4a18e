"""What the launches of an op move under each mapping that may be the best, before bandwidth and clock.

Every launch picks the best of the front at the bandwidth it meets: `Ways.at`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .search import Objective
from .space import Mapping

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# share of the least latency that a balanced mapping may lose to move fewer bytes
TOLERANCE = 0.01


class Tiles(NamedTuple):
    """What each launch moves and computes; nothing here depends on bandwidth or clock.

    Parameters
    ----------
    starts : int64[launches]
        First token.
    opens : bool[launches]
        Whether it begins a launch: always true, as a launch is the unit that transfers and computing are balanced over.
    inputs, weights, outputs : float64[launches]
        Bytes in whole bursts, partial sums that spill among the outputs.
    fill : float64[launches]
        Bytes that nothing hides.
    busy : float64[launches]
        Compute cycles.
    """

    starts: Ints
    opens: NDArray[np.bool_]
    inputs: Floats
    weights: Floats
    outputs: Floats
    fill: Floats
    busy: Floats

    def rows(self, chosen: Ints) -> Tiles:
        """Keep only some rows."""
        starts, opens, *sizes = self
        inputs, weights, outputs, fill, busy = (column[chosen] for column in sizes)
        return Tiles(starts[chosen], opens[chosen], inputs, weights, outputs, fill, busy)

    @property
    def bytes(self) -> Floats:
        """Bytes of each launch, all directions."""
        return self.inputs + self.weights + self.outputs

    def stall_cycles(self, bytes_per_cycle: float) -> int:
        """Cycles in which compute waits, ``sum fill + max(0, transfer - compute)``."""
        late = np.maximum(0.0, (self.bytes - self.fill) / bytes_per_cycle - self.busy)
        return int(np.ceil((self.fill / bytes_per_cycle + late).sum()))


class Ways(NamedTuple):
    """Mappings that each launch may choose from, launch by launch, those of fewest bytes first.

    Parameters
    ----------
    tiles : Tiles
        One row for each launch and mapping.
    first : int64[launches]
        First row of each launch.
    loaded, fetched : float64[rows]
        Bytes written to the buffers of activations (with partial sums read back) and of weights.
    mapping : int64[rows]
        Which of `mappings`.
    mappings : list of Mapping
        Without repetition.
    objective : {"balanced", "latency", "energy", "edp"}
        What a launch chooses by.
    """

    tiles: Tiles
    first: Ints
    loaded: Floats
    fetched: Floats
    mapping: Ints
    mappings: list[Mapping]
    objective: Objective

    def rows_at(self, bytes_per_cycle: float) -> Ints:
        """Row that each launch chooses at a bandwidth."""
        tiles = self.tiles
        if len(self.first) == len(tiles.starts):
            return self.first
        moved = tiles.bytes
        late = np.maximum(0.0, (moved - tiles.fill) / bytes_per_cycle - tiles.busy)
        return best_rows(self.objective, moved, tiles.fill / bytes_per_cycle + late, tiles.busy, self.first)

    def at(self, bytes_per_cycle: float) -> Ways:
        """Keep only what each launch chooses at a bandwidth."""
        rows = self.rows_at(bytes_per_cycle)
        return self._replace(
            tiles=self.tiles.rows(rows),
            first=np.arange(len(rows)),
            loaded=self.loaded[rows],
            fetched=self.fetched[rows],
            mapping=self.mapping[rows],
        )


def best_rows(objective: Objective, moved: Floats, stall: Floats, busy: Floats, first: Ints) -> Ints:
    """Choose the best row of each launch, of several alike the first.

    Parameters
    ----------
    objective : {"balanced", "latency", "energy", "edp"}
        What is least in the best row; see `MappingSpec`.
    moved, stall, busy : float64[rows]
        Bytes, stall cycles and compute cycles.
    first : int64[launches]
        First row of each launch.
    """
    counts = np.diff(np.append(first, len(moved)))
    latency = busy + stall
    if objective == "balanced":
        quick = latency <= np.repeat(np.minimum.reduceat(latency, first), counts) * (1 + TOLERANCE)
        worth = np.where(quick, moved, np.inf)
    else:
        worth = {"latency": latency, "energy": moved, "edp": latency * moved}[objective]
    least = np.repeat(np.minimum.reduceat(worth, first), counts)
    rows = np.where(worth == least, np.arange(len(worth)), len(worth))
    return np.minimum.reduceat(rows, first)
