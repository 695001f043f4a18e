"""A device's dense timing as one object, and the corrections that ship."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..config import Frozen, Status, from_yaml, packaged
from ..errors import InputError, nearest
from .correction import Correction
from .timing import TILE_FAMILIES, Floats, GemmTiming, Ints, Tiling, check_shapes, explain

FOLDER = "gpu/corrections"
FEW_OPS, KEY_BITS = 1000, 21


@dataclass(frozen=True)
class GemmModel:
    """Closed form, tile family, and the learned correction if there is one."""

    timing: GemmTiming
    tile_family: str
    correction: Correction | None = None

    def explain(self, mnk: object) -> Tiling:
        """Predict seconds ``float64[ops]`` of each (m, n, k), with the tiling chosen."""
        shapes, where = distinct(check_shapes(mnk))
        found = explain(shapes, self.timing, TILE_FAMILIES[self.tile_family])
        if self.correction is not None:
            found = found._replace(seconds=found.seconds * np.exp(self.correction.log_factor(shapes)))
        return found if where is None else Tiling(found.seconds[where], found.tile[where], found.split[where])

    def predict(self, mnk: object) -> Floats:
        """Seconds of each GEMM, ``float64[ops]``."""
        return self.explain(mnk).seconds


def distinct(shapes: Ints) -> tuple[Ints, Ints | None]:
    """Return each shape once, and where each op's shape is; models repeat the same few layers.

    Shapes too few to matter, too large for a common key, or as good as all different are returned as they are, with
    None.
    """
    if len(shapes) < FEW_OPS or int(shapes.max()) >= 1 << KEY_BITS:
        return shapes, None
    keys = (shapes[:, 0] << 2 * KEY_BITS) | (shapes[:, 1] << KEY_BITS) | shapes[:, 2]
    if len(np.unique(keys[:: len(keys) // FEW_OPS])) > FEW_OPS // 2:
        return shapes, None
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    return np.ascontiguousarray(shapes[first]), where


class CorrectionTable(Frozen):
    """A correction as it is stored: where its rows come from, length scales, and ``[m, n, k, weight]`` each."""

    name: str
    source: str
    status: Status
    sms: int
    scales: list[float]
    anchors: list[tuple[int, int, int, float]]


@lru_cache(maxsize=16)
def load_correction(name: str) -> Correction | None:
    """Load a correction that ships here; ``"none"`` is no correction.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name == "none":
        return None
    texts = packaged(FOLDER)
    if name not in texts:
        raise InputError(f"unknown GEMM correction '{name}'" + nearest(name, ["none", *texts]))
    table = from_yaml(CorrectionTable, texts[name], f"hwmodels/{FOLDER}/{name}.yaml")
    rows = np.array(table.anchors, dtype=np.float64)
    return Correction(table.sms, np.array(table.scales), rows[:, :3].astype(np.int64), np.ascontiguousarray(rows[:, 3]))
