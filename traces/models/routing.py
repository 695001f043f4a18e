"""Conditionally executed blocks, stored as one-expert mixtures: choice 0 where a token runs the block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .sites import MLPSite

SKIPPED = 1  # the choice of a token without an expert: one past the last


def routed_links(model: Any, sites: Sequence[MLPSite]) -> dict[tuple[str, int], str]:
    """Return the modules, by name and call, that see a routed site's tokens only."""
    names = {id(module): name for name, module in model.named_modules()}
    return {
        (names[id(module)], site.call): site.name
        for site in sites
        if site.routed
        for module in model.get_submodule(site.module).routed_with
    }


@contextmanager
def all_tokens(model: Any) -> Iterator[None]:
    """Let every token take every block for a while: rows that depend on the data have no form in a batch's shape."""
    routers = [module for module in model.modules() if hasattr(module, "everything")]
    for router in routers:
        router.everything = True
    try:
        yield
    finally:
        for router in routers:
            router.everything = False


def spread_rows(rows: Any, value: Any) -> tuple[Any, Any]:
    """Return values (tokens, K) of all tokens, zero where one passed by, and each token's choice (tokens, 1).

    Parameters
    ----------
    rows : bool tensor
        Which tokens took the block.
    value : float tensor (R, K)
        Of those that did.
    """
    flat = rows.reshape(-1)
    whole = value.new_zeros((len(flat), value.shape[-1]))
    whole[flat] = value.reshape(-1, value.shape[-1])
    return whole, (~flat).to(value.device).long()[:, None] * SKIPPED
