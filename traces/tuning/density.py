"""DEFT: tune with a penalty on the share of non-zero MLP activations (arXiv 2402.01911)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..sites import MLPSite
from .registry import Method
from .spec import DensityLoss

if TYPE_CHECKING:
    import torch

METHOD = Method(
    name="density",
    title="DEFT, density-efficient fine-tuning: a penalty on the density of the MLP activations",
    equation=(
        "L = L_task + w * mean_l D_l;  deft: D_l = mean a^2 / (a^2 + eps);  tanh: D_l = mean tanh(beta |a|);  "
        "a_l = f(x W1), averaged over real tokens and neurons"
    ),
    source="DEFT, arXiv 2402.01911",
    evidence="code",
    notes=(
        "The `deft` surrogate and its defaults are the paper's; `tanh`, annealing and the swap to ReLU are ours, "
        "because on GELU the literal penalty has next to no gradient. Not the unrelated DEFT that ships with peft."
    ),
)


def anneal(start: float, end: float | None, progress: float) -> float:
    """Interpolate geometrically from `start` to `end`; ``progress`` runs from 0 to 1."""
    return start if end is None else start * (end / start) ** progress


def penalty(values: torch.Tensor, loss: DensityLoss, progress: float) -> torch.Tensor:
    """Return D of one site: a smooth count of non-zeros, averaged.

    Parameters
    ----------
    values : float tensor (tokens, K)
        Activations of the tokens that count.
    loss : DensityLoss
        Surrogate and its softness.
    progress : float
        Share of the training that is done, 0 to 1.
    """
    if loss.surrogate == "tanh":
        import torch as th

        return th.tanh(values.abs() * anneal(loss.beta, loss.beta_end, progress)).mean()
    square = values.square()
    return (square / (square + anneal(loss.eps, loss.eps_end, progress))).mean()


class ActivationTap:
    """Hooks that keep each MLP site's activations of the last forward pass.

    Parameters
    ----------
    model : torch.nn.Module
    sites : list of MLPSite
        Names must be those of `model` as it is now, after peft has wrapped it.
    at : {"product", "gate"}
        Input of the down-projection, or output of the activation function.
    """

    def __init__(self, model: Any, sites: list[MLPSite], at: str = "product") -> None:
        self.values: list[torch.Tensor] = []
        self._handles = []
        for site in sites:
            if at == "gate" and site.gate and site.activation is not None:
                handle = model.get_submodule(site.activation).register_forward_hook(
                    lambda _module, _inputs, output: self.values.append(output)
                )
            else:
                handle = model.get_submodule(site.module).register_forward_pre_hook(
                    lambda _module, inputs: self.values.append(inputs[0])
                )
            self._handles.append(handle)

    def take(self, keep: torch.Tensor | None) -> list[torch.Tensor]:
        """Return the activations of the tokens where `keep` is true, and forget them."""
        values, self.values = self.values, []
        return [v.flatten(0, -2) if keep is None else v[keep] for v in values]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
