"""Op lists of models whose KV cache keeps a window of keys: dimensions as they are below and beyond the window.

transformers lets a layer with a sliding window (or attention in chunks) keep as many keys as fit the window, and a
decoding step attend to those. The window is far beyond any probe, so the cache is probed with other windows: with one
that is never reached, and with one of a few tokens. What differs is what the real window bounds. A prompt's pass has
all S x S scores whatever the window, for it is applied as a mask; so that is what is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..errors import InputError
from ..models.sites import MLPSite
from .ops import Dim, Shape, Template
from .probe import probe_ops

NEVER = 1 << 30
SMALL = 3  # tokens; fewer than any probe has


def list_ops(
    model: Any,
    probe: Callable[..., Callable[[], object]],
    shapes: Sequence[Shape],
    sites: Sequence[MLPSite],
    inputs: Mapping[tuple[str, int], str] | None = None,
) -> list[Template]:
    """Return a model's op list, valid below and beyond the windows of its cache.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    probe : callable
        Returns a run for a model and a shape: `prompt_probe` or `decode_probe`.
    shapes, sites, inputs
        As for `probe_ops`.

    Raises
    ------
    InputError
        If a window changes an operator otherwise than by bounding the number of keys.
    """

    def listed(bound: Callable[[int], int]) -> tuple[list[Template], set[int]]:
        with cache_windows(bound) as seen:
            return probe_ops(model, [probe(model, *shape) for shape in shapes], shapes, sites, inputs), seen

    unbounded, windows = listed(lambda window: NEVER)
    templates = unbounded
    for window in sorted(windows):
        bounded, _ = listed(lambda other, window=window: SMALL if other == window else NEVER)  # type: ignore[misc]
        if [_what(t) for t in unbounded] != [_what(t) for t in bounded]:
            raise InputError(
                f"this model executes other operators beyond its window of {window} tokens; its ops cannot be listed"
            )
        templates = [
            replace(template, **_bounds(whole, small, window, shapes))
            for template, whole, small in zip(templates, unbounded, bounded, strict=True)
        ]
    return templates


@contextmanager
def cache_windows(bound: Callable[[int], int]) -> Iterator[set[int]]:
    """Let KV caches that are made in the block keep ``bound(window)`` tokens; yield the windows that were asked for."""
    from transformers.cache_utils import DynamicSlidingWindowLayer as Layer

    seen: set[int] = set()
    plain = Layer.__init__

    def made(layer: Any, sliding_window: int, *args: Any, **kwargs: Any) -> None:
        seen.add(int(sliding_window))
        plain(layer, bound(int(sliding_window)), *args, **kwargs)

    Layer.__init__ = made
    try:
        yield seen
    finally:
        Layer.__init__ = plain


def _what(template: Template) -> tuple[str, int, str]:
    return template.op, template.layer, template.kind


def _bounds(whole: Template, small: Template, window: int, shapes: Sequence[Shape]) -> dict[str, Any]:
    """Return the dimensions that a small window has changed, bounded by the real one."""
    changed = {}
    for name in ("m", "k", "n", "repeat", "shared"):
        dim: Dim = getattr(whole, name)
        values = [getattr(small, name).at(*shape) for shape in shapes]
        if [dim.at(*shape) for shape in shapes] == values:
            continue
        fitting = [w for w in (SMALL - 1, SMALL, SMALL + 1) if [replace(dim, w=w).at(*s) for s in shapes] == values]
        if not fitting:
            raise InputError(
                f"operator '{whole.op}' of layer {whole.layer} has a dimension of {values[0]} and {values[1]} with a "
                f"cache of {SMALL} tokens in place of {window}; this model's ops cannot be described by its windows"
            )
        changed[name] = replace(dim, w=window + fitting[0] - SMALL)
    return changed
