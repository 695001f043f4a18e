"""Swap the MLP's activation function for one with exact zeros, then tune."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ...errors import InputError
from ...models.experts import dense_sites
from ...models.sites import MLPSite
from ..activations import of_tokens
from ..change import Change, Decided, Method, Part, Sample
from ..layers.lowrank import matrix
from ..refit import add, refit

if TYPE_CHECKING:
    import torch

METHOD = Method(
    name="relufy",
    title="Replace GELU or SiLU by ReLU (or a shifted, squared or thresholded one), then tune",
    equation=(
        "a = max(x - shift, 0); relu2: max(x, 0)^2; threshold: f(x) where |f(x)| > t, else 0; "
        "with a target density d, shift or t of each layer is the (1 - d) quantile of x or |f(x)| on training data; "
        "by contribution: |f(x_j)| c_j > t instead, c_j = rms(u_j) |W_j|, u_j what multiplies f(x_j) in a gated MLP, "
        "W_j its column of the down-projection; "
        "refit: W' = argmin |Y - a W'^T|^2, Y what the down-projection gave before the swap"
    ),
    source="Mirzadeh et al., ReLU Strikes Back, arXiv 2310.04564; ProSparse, arXiv 2402.13516; "
    "TEAL, arXiv 2408.14690; CATS, arXiv 2404.08763; contribution: after WINA, arXiv 2505.19427; refit: Nagel et al., "
    "arXiv 1906.04721; Frantar et al., arXiv 2208.11580",
    evidence="paper",
    notes="The swap alone costs accuracy; tuning wins it back, or most of it a refit of the down-projections without.",
)
CALIBRATION = (8, 32)  # batches, and items in each
QUANTILE_VALUES = 1 << 22  # of one layer at most, of evenly spaced tokens: the quantile's error is far below 0.001
MEASURABLE = 1e-4  # of a layer's largest |f(x)|: what multiplies smaller ones is not told from their product


class Activation(Part):
    """What replaces the MLP's activation function before tuning.

    ``relu``: max(x, 0). ``shifted_relu``: max(x - shift, 0). ``relu2``: max(x, 0)^2. ``threshold``: the model's own
    activation with results of magnitude up to `threshold` set to zero.

    Parameters
    ----------
    shift, threshold : float
        The same for every layer, where no density is given.
    density : float, optional
        Calibrate shift or threshold of each layer on training data, so that this share is left non-zero.
    by : {"contribution"}, optional
        Hold a calibrated threshold against the activation's size times how much the neuron's activation counts in the
        block's output, so that each neuron has a threshold of its own; against the size alone by default.
    slope : float, optional
        Of n layers, layer i is calibrated to ``density (1 + slope (1 - 2 i / (n - 1)))``: the first ones keep more, the
        mean is `density`.
    refit : {"bias", "weights"}, optional
        Fit the down-projections' biases, or weights and biases, to what they gave before the swap, in closed form on
        training data; see `traces.tuning.refit.refit`.
    """

    type: Literal["relu", "shifted_relu", "relu2", "threshold"]
    shift: float = 0.0
    threshold: float = Field(default=0.0, ge=0)
    density: float | None = Field(default=None, gt=0, lt=1)
    by: Literal["contribution"] | None = None
    slope: float | None = Field(default=None, gt=-1, lt=1)
    refit: Literal["bias", "weights"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Activation:
        if self.density is None and (self.slope is not None or self.by is not None):
            raise ValueError("slope and by say how layers are calibrated to a density; give one")
        if self.density is not None and self.type not in ("shifted_relu", "threshold"):
            raise ValueError(f"activation '{self.type}' has nothing to calibrate to a density; use shifted_relu")
        if self.by is not None and self.type != "threshold":
            raise ValueError("by: contribution is for type: threshold; a shift acts before the activation function")
        if self.density is not None and self.density * (1 + abs(self.slope or 0.0)) >= 1:
            raise ValueError(f"density {self.density} and slope {self.slope} ask one end for all; lower either")
        return self

    def change(self) -> Change:
        """Return the swap."""
        return Relufy(self)

    def densities(self, sites: int) -> list[float]:
        """Return what each site is calibrated to, in execution order."""
        assert self.density is not None
        slope, last = self.slope or 0.0, max(1, sites - 1)
        return [self.density * (1 + slope * (1 - 2 * i / last)) for i in range(sites)]


class Relufy(Change):
    """Replaces the activation functions."""

    on_start = True  # levels and fits are those of the weights that the tuning begins with

    def __init__(self, part: Activation) -> None:
        self.part = part

    def decide(self, net: Any, sample: Sample) -> dict[str, torch.Tensor]:
        """Calibrate each layer's shift or threshold, where a density is asked for, and fit the down-projections."""
        part = self.part
        decided: dict[str, torch.Tensor] = {}
        if part.density is not None:
            decided |= calibrate(net, sample, part)
        if part.refit is not None:
            sites = dense_sites(net)
            own = [activation_of(net, site) for site in sites]
            try:
                decided |= refit(net, sites, sample, lambda: self._swap(net, decided), part.refit)
            finally:
                for site, module in zip(sites, own, strict=True):
                    _replace(net, site, module)
        return decided

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Put the new activation functions in, and the down-projections fitted to them."""
        self._swap(net, decided)
        add(net, dense_sites(net), {n: t for n, t in decided.items() if n.partition(".")[0] in ("bias", "weight")})
        return net

    def _swap(self, net: Any, decided: Decided) -> None:
        levels, sites = decided.get("level"), dense_sites(net)
        for site in _first_calls(sites):
            index = sites.index(site)
            level = None if levels is None else float(levels[index])
            _replace(net, site, build(self.part, activation_of(net, site), level, decided.get(f"share.{index}")))

    def facts(self, net: Any) -> dict[str, Any]:
        """Return each layer's level, where it was calibrated."""
        if self.part.density is None:
            return {}
        found = [net.get_submodule(s.activation) for s in dense_sites(net) if s.activation is not None]
        return {"activation_levels": [float(getattr(m, "shift", getattr(m, "threshold", 0.0))) for m in found]}


def _replace(net: Any, site: MLPSite, module: Any) -> None:
    parent, _, leaf = str(site.activation).rpartition(".")
    setattr(net.get_submodule(parent), leaf, module)


def activation_of(net: Any, site: MLPSite) -> Any:
    """Return a site's activation module.

    Raises
    ------
    InputError
        If the activation function is not a module of its own.
    """
    if site.activation is None:
        raise InputError(f"{site.module}: its activation function is not a module, so it cannot be replaced")
    return net.get_submodule(site.activation)


def calibrate(net: Any, sample: Sample, part: Activation) -> dict[str, torch.Tensor]:
    """Return the levels that leave each MLP site's activations the density asked for.

    Parameters
    ----------
    net : torch.nn.Module
        The model with its own activation functions.
    sample : Sample
        Training data.
    part : Activation
        Its `density`, `slope` and `by`; a threshold is held against ``|f(x)|``, a shift against the pre-activation x.

    Returns
    -------
    dict
        ``level`` float32[sites], the same for layers that share weights; by contribution also ``share.SITE``
        float32[K], c_j over its mean, SITE counting from 0: the neuron's own threshold is the level divided by it.

    Notes
    -----
    All layers are calibrated on the unchanged model. A shift moves what later layers see, so the density after the swap
    is near the target, not at it; the measurements hold the true one.
    """
    import torch as th

    sites = dense_sites(net)
    watched = {str(site.activation): _Watched(net, site, part) for site in _first_calls(sites)}
    try:
        with th.no_grad():
            for batch in sample.batches(*CALIBRATION):
                for one in watched.values():
                    one.real = batch.real_at(one.site.name)
                net(**batch.inputs)
    finally:
        for one in watched.values():
            one.close()
    wanted: dict[str, list[float]] = {name: [] for name in watched}
    for site, density in zip(sites, part.densities(len(sites)), strict=True):
        wanted[str(site.activation)].append(density)
    levels, found = {}, {}
    for name, one in watched.items():
        values = th.cat(one.values)
        if part.by is not None:
            found[f"share.{sites.index(one.site)}"] = share = one.share()
            values = values * share
        flat = values.flatten().sort().values
        density = sum(wanted[name]) / len(wanted[name])
        levels[name] = flat[min(len(flat) - 1, int((1.0 - density) * len(flat)))]
    return {"level": th.stack([levels[str(site.activation)] for site in sites]).float()} | found


def _first_calls(sites: list[MLPSite]) -> list[MLPSite]:
    """Return one site for each activation module: layers that share their weights share it."""
    found: dict[str | None, MLPSite] = {}
    for site in sites:
        found.setdefault(site.activation, site)
    return list(found.values())


class _Watched:
    """What calibration sees of one site: some tokens' values, and how large the factors of a gated MLP are."""

    def __init__(self, net: Any, site: MLPSite, part: Activation) -> None:
        self.site, self.part = site, part
        self.values: list[torch.Tensor] = []
        self.real: Any = None
        self._own: Any = None
        self._squares: Any = 0.0
        self._seen: Any = 0.0
        self._down = net.get_submodule(site.module)
        self._hooks = [activation_of(net, site).register_forward_hook(self._activation)]
        if part.by is not None and site.gate:
            self._hooks.append(self._down.register_forward_pre_hook(self._product))

    def _activation(self, _module: Any, inputs: Any, output: torch.Tensor) -> None:
        own = of_tokens(output if self.part.type == "threshold" else inputs[0], self.real)
        self._own = own if len(self._hooks) > 1 else None
        step = math.ceil(own.numel() * CALIBRATION[0] / QUANTILE_VALUES)
        some = own[:: max(1, step)].float()
        self.values.append(some.abs() if self.part.type == "threshold" else some)

    def _product(self, _module: Any, inputs: Any) -> None:
        """Sum squares of u = (f(x) u) / f(x) where f(x) is large enough to divide by."""
        own, product = self._own.float(), of_tokens(inputs[0], self.real).float()
        use = own.abs() > MEASURABLE * own.abs().max()
        self._squares = self._squares + (product / own).where(use, product.new_zeros(())).square().sum(0)
        self._seen = self._seen + use.sum(0)

    def share(self) -> torch.Tensor:
        """Return c_j over its mean, float32[K]."""
        weight = matrix(getattr(self._down, "base_layer", self._down)).float().norm(dim=0)
        if len(self._hooks) > 1:
            weight = weight * (self._squares / self._seen.clamp_min(1)).sqrt()
        return weight / weight.mean()

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()


def build(activation: Activation, own: Any, level: float | None = None, share: torch.Tensor | None = None) -> Any:
    """Return the module that stands in for the model's own activation function; see `calibrate` for level and share."""
    import torch

    from ..layers import activations

    makers = {
        "relu": torch.nn.ReLU,
        "shifted_relu": lambda: activations.ShiftedReLU(activation.shift if level is None else level),
        "relu2": activations.SquaredReLU,
        "threshold": lambda: activations.Thresholded(own, activation.threshold if level is None else level, share),
    }
    return makers[activation.type]()
