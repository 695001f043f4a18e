"""Forward hooks that pack activations as they pass."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import InputError
from .pack import Words, pack, pack_torch
from .sites import MLPSite

INT8 = "int8"
HISTOGRAM_BINS = 64  # powers of two from 2^-48 to 2^15 of |a|; exact zeros are not in any


class SiteTap:
    """Packs each site's input, and for gated MLPs the activation's output, of every forward pass.

    Parameters
    ----------
    model : torch.nn.Module
        What runs.
    sites : sequence of MLPSite
        Where to look; see `with_gates` for the activations' outputs.
    variants : sequence of str
        Further masks beside that of exact non-zeros: ``"0.01"`` for ``|a| > 0.01``, ``"int8"`` for what is not zero
        after symmetric quantisation of each token to 8 bits.
    histogram : bool
        Count magnitudes by powers of two.
    """

    def __init__(
        self, model: Any, sites: Sequence[MLPSite], variants: Sequence[str] = (), histogram: bool = False
    ) -> None:
        self.masks: dict[str, Words] = {}
        self.non_finite: dict[str, int] = {}
        self.seconds = 0.0
        self.histograms = {site.name: np.zeros(HISTOGRAM_BINS, dtype=np.int64) for site in sites if histogram}
        self._variants = list(variants)
        self._calls: Counter[str] = Counter()
        self._names = {(site.module, site.call): site.name for site in sites}
        self._handles = []
        for module in dict.fromkeys(site.module for site in sites):
            owner = model.get_submodule(module)
            if any(site.module == module and site.output for site in sites):
                self._handles.append(owner.register_forward_hook(self._after(module)))
            else:
                self._handles.append(owner.register_forward_pre_hook(self._before(module)))

    def _before(self, module: str) -> Any:
        return lambda _module, inputs: self._take(module, inputs[0])

    def _after(self, module: str) -> Any:
        return lambda _module, _inputs, output: self._take(module, output)

    def _take(self, module: str, value: Any) -> None:
        import torch

        began = time.perf_counter()
        name = self._names[module, self._calls[module]]
        self._calls[module] += 1
        flat = value.detach().reshape(-1, value.shape[-1])
        if not bool(torch.isfinite(flat.sum())):
            bad = int((~torch.isfinite(flat)).sum())
            if bad:  # a sum can overflow though every term is finite
                self.non_finite[name] = bad
        self.masks[name] = pack_values(flat)
        for variant in self._variants:
            self.masks[f"{name}@{variant}"] = pack_bits(above(flat, variant))
        if name in self.histograms:
            exponent = torch.frexp(flat[flat != 0].float()).exponent.clamp(-47, 16) + 47
            self.histograms[name] += torch.bincount(exponent.long(), minlength=HISTOGRAM_BINS).cpu().numpy()
        self.seconds += time.perf_counter() - began

    def take(self) -> dict[str, Words]:
        """Return the masks of the last forward pass by site (and ``site@variant``), and forget them."""
        masks, self.masks = self.masks, {}
        self._calls.clear()
        return masks

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def above(values: Any, variant: str) -> Any:
    """Return which entries of a 2-D tensor a variant counts as non-zero.

    Notes
    -----
    ``int8``: q = round(127 a / max|a|) of each row, rounding half to even; non-zero where |a| > max|a| / 254.
    """
    if variant == INT8:
        magnitude = values.abs()
        return magnitude * 254 > magnitude.amax(dim=1, keepdim=True)
    return values.abs() > float(variant)


def parse_variants(thresholds: Sequence[float], int8: bool) -> list[str]:
    """Name the further masks.

    Raises
    ------
    InputError
        If a threshold is not a positive number.
    """
    for value in thresholds:
        if not 0 < value < float("inf"):
            raise InputError(f"threshold {value}: must be a positive number (exact zeros are always recorded)")
    return [*(f"{value:g}" for value in thresholds), *([INT8] if int8 else [])]


def pack_values(values: Any) -> Words:
    """Pack the non-zeros of a 2-D tensor on any device into ``uint64[rows, words]`` on the host."""
    return pack_bits(values != 0)


def pack_bits(mask: Any) -> Words:
    """Pack a boolean 2-D tensor on any device into ``uint64[rows, words]`` on the host."""
    if mask.device.type == "cpu":
        return pack(mask.numpy())
    words: Words = pack_torch(mask).cpu().numpy().view(np.uint64)
    return words
