"""Which weights of a whole model stay on the chip: as many as fit, in the order of the model; the rest streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Residence(NamedTuple):
    """Where an op's weights are.

    Parameters
    ----------
    on_chip : bool
        Whether they live on the chip, and need no transfer.
    taken_bytes : float
        Room in the weights' level that weights of the model take for good.
    """

    on_chip: bool
    taken_bytes: float = 0.0


def residences(
    weight_bytes: Sequence[float], room_bytes: float, stream_bytes: float, others_stream: bool
) -> list[Residence]:
    """Decide for each set of weights whether it lives on the chip.

    If all fit, all do. Otherwise `stream_bytes` are kept free for those that stream, and the others stay in order, each
    that still fits.

    Parameters
    ----------
    weight_bytes : sequence of float
        Weights as stored, in the order of the model.
    room_bytes : float
        Size of the level that holds weights.
    stream_bytes : float
        What streaming needs at least: two tiles of what the array takes at once.
    others_stream : bool
        Whether something else streams through the level, such as keys and values.

    Returns
    -------
    list of Residence
        One for each set of weights.
    """
    left = room_bytes
    if others_stream or sum(weight_bytes) > room_bytes:
        left -= stream_bytes
    stay = []
    for size in weight_bytes:
        stay.append(size <= left)
        left -= size if stay[-1] else 0.0
    taken = sum(size for size, stays in zip(weight_bytes, stay, strict=True) if stays)
    return [Residence(stays, taken) for stays in stay]
