"""Identity of the code that decides counts: a part of every run's key."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import traces
from hwmodels.registry import kernel_hash, kernel_of
from hwmodels.sources import package_hash

from ..provenance import key_of

if TYPE_CHECKING:
    from hwmodels import Arch


@lru_cache(maxsize=1)
def model_sources() -> str:
    """Hash of the code that decides counts, so that a changed kernel computes afresh.

    All of `hwmodels` less its slow twins, and the rooms that turn a trace into ops and add up what was counted.
    """
    package = Path(traces.__file__).parent
    rooms = (package / "oplist", package / "storage", Path(__file__).parent)
    files = [path for room in rooms for path in sorted(room.rglob("*.py"))]
    return key_of(package_hash(), [hashlib.sha256(path.read_bytes()).hexdigest() for path in files])


def kernel_sources(arch: Arch) -> str:
    """Hash of the code that decides an arch's counts, part of every run key: `model_sources`, and its kernel's own.

    A kernel that a third party or a notebook registered counts with its helpers; see `hwmodels.sources.code_hash`.
    """
    own = kernel_hash(kernel_of(arch))
    return key_of(model_sources(), own) if own else model_sources()
