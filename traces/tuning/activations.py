"""The activations of a model's sites during training, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..models.sites import MLPSite

if TYPE_CHECKING:
    import torch


def of_tokens(value: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the rows of the tokens where `real` is true, (tokens, K).

    Parameters
    ----------
    value : tensor (B, S, K) or (B S, K)
        Activations; where it has more tokens than `real`, the first ones are virtual tokens and do not count.
    real : bool tensor (B, S)
        Which tokens are real.
    """
    if value.dim() == 2 and len(value) < real.numel():  # routed tokens, padding never among them
        return value
    if value.dim() == 2:  # OPT and some others flatten their tokens
        value = value.reshape(len(real), -1, value.shape[-1])
    return value[:, value.shape[1] - real.shape[1] :][real]


class ActivationTap:
    """Hooks that keep each MLP site's activations of the last forward pass.

    What enters experts is noted by `traces.models.experts.recorded_experts`: a row of a token holds all its experts'
    elements.

    Parameters
    ----------
    model : torch.nn.Module
    sites : list of MLPSite
        Names must be those of `model` as it is now, after its changes.
    at : {"product", "gate"}
        Input of the down-projection, or output of the activation function.
    """

    def __init__(self, model: Any, sites: list[MLPSite], at: str = "product") -> None:
        self._values: list[tuple[str, int, torch.Tensor]] = []
        self._sites = sites
        self._calls: dict[str, int] = {}
        self._handles = []
        self._experts = {site.name: site.module for site in sites if site.experts}
        for name in dict.fromkeys(site.module for site in sites if not site.experts):
            site = next(s for s in sites if s.module == name)
            if at == "gate" and site.gate and site.activation is not None:
                handle = model.get_submodule(site.activation).register_forward_hook(self._after(name))
            else:
                handle = model.get_submodule(name).register_forward_pre_hook(self._before(name))
            self._handles.append(handle)

    def _after(self, name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: self._keep(name, output)

    def _before(self, name: str) -> Callable[..., None]:
        return lambda _module, inputs: self._keep(name, inputs[0])

    def _keep(self, name: str, value: torch.Tensor) -> None:
        call = self._calls.get(name, 0)  # ALBERT runs one layer's weights many times in a pass
        self._calls[name] = call + 1
        self._values.append((name, call, value))

    def note(self, site: str, inner: torch.Tensor | None, many: int) -> None:
        """Take what enters the down-projections of one layer's experts, (tokens, `many`, K); None where none ran."""
        if inner is not None:
            self._keep(self._experts[site], inner.flatten(1))

    def choose(self, site: str, chosen: torch.Tensor) -> None:
        """Take which experts were chosen: a density does not ask."""

    def take(self) -> list[torch.Tensor | None]:
        """Return the last pass's activations by site, None where a site did not run, and forget them."""
        found = {(name, call): value for name, call, value in self._values}
        self._values, self._calls = [], {}
        return [found.get((site.module, site.call)) for site in self._sites]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
