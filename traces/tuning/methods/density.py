"""DEFT: tune with a penalty on the share of non-zero MLP activations (arXiv 2402.01911)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ...errors import InputError
from ...models.sites import MLPSite
from ..change import Method, Part

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


class DensityLoss(Part):
    """Penalty on the share of non-zero MLP activations.

    Parameters
    ----------
    weight : float
        Factor of the penalty in the loss.
    layers : tuple of float, optional
        Factors of the single sites, in execution order, beside `weight`; all 1 by default.
    weight_encoder, weight_decoder : float
        Further factors of an encoder-decoder's two stacks, as the released code of DEFT has them.
    surrogate : {"deft", "tanh"}
        Smooth stand-in for the count: ``a^2 / (a^2 + eps)`` or ``tanh(beta * |a|)``.
    eps, eps_end : float
        The first surrogate's softness at the first and at the last step (geometric in between).
    beta, beta_end : float
        The second surrogate's slope at the first and at the last step (geometric in between).
    warmup : float
        Share of the steps over which the weight rises linearly from zero.
    at : {"product", "gate"}
        For gated MLPs, penalise what the down-projection sees or the gate branch alone.
    count_padding : bool
        Average over padding tokens too, as the released code of DEFT does.
    """

    weight: float = Field(default=1.0, ge=0)
    layers: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    weight_encoder: float = Field(default=1.0, ge=0)
    weight_decoder: float = Field(default=1.0, ge=0)
    surrogate: Literal["deft", "tanh"] = "deft"
    eps: float = Field(default=1e-7, gt=0)
    eps_end: float | None = Field(default=None, gt=0)
    beta: float = Field(default=20.0, gt=0)
    beta_end: float | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.0, ge=0, le=1)
    at: Literal["product", "gate"] = "product"
    count_padding: bool = False


def factors(sites: list[MLPSite], loss: DensityLoss) -> list[float]:
    """Return each site's share of the penalty: the mean over a stack, times its factors.

    Raises
    ------
    InputError
        If `layers` names another number of sites than the model has.
    """
    if loss.layers is not None and len(loss.layers) != len(sites):
        raise InputError(f"density.layers has {len(loss.layers)} factors, the model has {len(sites)} MLP sites")
    own = loss.layers or (1.0,) * len(sites)
    stacks = [site.name.split(".")[0] if site.name.startswith(("encoder.", "decoder.")) else "" for site in sites]
    weights = {"encoder": loss.weight_encoder, "decoder": loss.weight_decoder, "": 1.0}
    return [weights[stack] * f / stacks.count(stack) for stack, f in zip(stacks, own, strict=True)]


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
