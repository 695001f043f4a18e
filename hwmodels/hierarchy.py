"""Memory levels of an arch in plain numbers, and the words that live there."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from .arch import Arch
from .errors import InputError
from .mapping.levels import OPERANDS, Level, LevelSpec, plain


def levels_of(arch: Arch) -> list[Level]:
    """Memory levels of an arch, the top first: as stated, or derived from its four flat fields.

    Raises
    ------
    InputError
        If a level cannot hold one word of each operand that lives there.
    """
    memory = arch.memory
    if memory.levels is None:
        rates = [float(memory.bandwidth.value), inf, inf]
    else:
        rates = [_bytes_per_s(spec, arch) for spec in memory.levels]
    return [level._replace(bytes_per_s=rate) for level, rate in zip(rooms_of(arch), rates, strict=True)]


def rooms_of(arch: Arch) -> list[Level]:
    """Do as `levels_of` does without looking at bandwidths or clock, which say nothing of what fits.

    A memo that watches which fields are read must not take a mapping to depend on them.
    """
    levels = list(arch.memory.rooms)
    _check_words(levels, arch)
    return levels


def _bytes_per_s(spec: LevelSpec, arch: Arch) -> float:
    if spec.bandwidth is not None:
        return float(spec.bandwidth.value)
    if spec.width is not None:
        return float(spec.width.value) / 8 * plain(spec.banks) * plain(spec.count) * arch.clock_hz
    return inf


def word_bytes(arch: Arch) -> dict[str, float]:
    """Bytes of one word of each operand, metadata apart."""
    bits = {"activation": "activation", "weight": "weight", "output": "activation"}
    return {operand: int(arch.bits[field].value) / 8 for operand, field in bits.items()}  # type: ignore[index]


def _check_words(levels: Sequence[Level], arch: Arch) -> None:
    words = word_bytes(arch)
    for level in levels[1:]:
        wanted = sum(words[operand] for operand in level.holds)
        if level.size_bytes < wanted:
            held = " and one of ".join(operand for operand in OPERANDS if operand in level.holds)
            raise InputError(
                f"arch '{arch.name}': memory level '{level.name}' of {level.size_bytes:g} byte cannot hold one word of "
                f"{held}; give it at least {wanted:g} byte"
            )
