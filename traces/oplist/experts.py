"""The GEMMs of one expert of a mixture, as templates."""

from __future__ import annotations

from typing import Any

from ..models.sites import MLPSite
from .ops import Dim, Template


def expert_templates(module: Any, site: MLPSite, claimed: set[int]) -> list[Template]:
    """Operators of one layer's experts over all their rows, B S chosen; a trace splits them by the recorded choice."""
    rows, one = Dim(site.chosen, 1, 1), Dim(1)

    def matmul(op: str, k: int, n: int, parameter: str) -> Template:
        tensors = [t for t in (getattr(module, parameter), getattr(module, f"{parameter}_bias", None)) if t is not None]
        claimed.update(id(t) for t in tensors)
        size = sum(t.numel() * t.element_size() for t in tensors)
        return Template(op, site.layer, "gemm", rows, Dim(k), Dim(n), one, True, size, input_site=site.name)

    def vector(op: str) -> Template:
        return Template(op, site.layer, "vector", Dim(site.chosen * site.k, 1, 1), one, one, one, False, 0)

    wide = 2 if module.has_gate else 1
    first = matmul(
        "gate_up" if module.has_gate else "up", site.n, wide * site.k, "gate_up_proj" if wide == 2 else "up_proj"
    )
    between = [vector("activation"), *([vector("product")] if module.has_gate else [])]
    return [first, *between, matmul("down", site.k, site.n, "down_proj")]
