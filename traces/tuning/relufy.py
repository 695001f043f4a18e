"""Swap the MLP's activation function for one with exact zeros, then tune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..errors import InputError
from ..sites import MLPSite, find_sites
from .change import Change, Decided, Method, Part, Sample
from .refit import add, refit

if TYPE_CHECKING:
    import torch

METHOD = Method(
    name="relufy",
    title="Replace GELU or SiLU by ReLU (or a shifted, squared or thresholded one), then tune",
    equation=(
        "a = max(x - shift, 0); relu2: max(x, 0)^2; threshold: f(x) where |f(x)| > t, else 0; "
        "with a target density d, shift or t of each layer is the (1 - d) quantile of x or |f(x)| on training data; "
        "refit: W' = argmin |Y - a W'^T|^2, Y what the down-projection gave before the swap"
    ),
    source="Mirzadeh et al., ReLU Strikes Back, arXiv 2310.04564; ProSparse, arXiv 2402.13516; "
    "TEAL, arXiv 2408.14690; CATS, arXiv 2404.08763; refit: Nagel et al., arXiv 1906.04721; Frantar et al., "
    "arXiv 2208.11580",
    evidence="paper",
    notes="The swap alone costs accuracy; tuning wins it back, or most of it a refit of the down-projections without.",
)
CALIBRATION = (8, 32)  # batches, and items in each
QUANTILE_VALUES = 1 << 20  # of one layer at most, evenly spaced: the quantile's error is far below 0.001 of density


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
    refit : {"bias", "weights"}, optional
        Fit the down-projections' biases, or weights and biases, to what they gave before the swap, in closed form on
        training data; see `traces.tuning.refit.refit`.
    """

    type: Literal["relu", "shifted_relu", "relu2", "threshold"]
    shift: float = 0.0
    threshold: float = Field(default=0.0, ge=0)
    density: float | None = Field(default=None, gt=0, lt=1)
    refit: Literal["bias", "weights"] | None = None

    def change(self) -> Change:
        """Return the swap."""
        return Relufy(self)


class Relufy(Change):
    """Replaces the activation functions."""

    on_start = True  # levels and fits are those of the weights that the tuning begins with

    def __init__(self, part: Activation) -> None:
        self.part = part

    def decide(self, net: Any, sample: Sample) -> dict[str, torch.Tensor]:
        """Calibrate each layer's shift or threshold, where a density is asked for, and fit the down-projections."""
        part, decided = self.part, {}
        if part.density is not None:
            if part.type not in ("shifted_relu", "threshold"):
                raise InputError(f"activation '{part.type}' has nothing to calibrate to a density; use shifted_relu")
            decided["level"] = calibrate(net, sample, part.density, part.type == "threshold")
        if part.refit is not None:
            sites = find_sites(net)
            own = [activation_of(net, site) for site in sites]
            try:
                decided |= refit(net, sites, sample, lambda: self._swap(net, decided.get("level")), part.refit)
            finally:
                for site, module in zip(sites, own, strict=True):
                    _replace(net, site, module)
        return decided

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Put the new activation functions in, and the down-projections fitted to them."""
        self._swap(net, decided.get("level"))
        add(net, find_sites(net), {name: tensor for name, tensor in decided.items() if name != "level"})
        return net

    def _swap(self, net: Any, levels: torch.Tensor | None) -> None:
        for index, site in enumerate(find_sites(net)):
            own = activation_of(net, site)
            _replace(net, site, build(self.part, own, None if levels is None else float(levels[index])))

    def facts(self, net: Any) -> dict[str, Any]:
        """Return each layer's level, where it was calibrated."""
        if self.part.density is None:
            return {}
        found = [net.get_submodule(s.activation) for s in find_sites(net) if s.activation is not None]
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


def calibrate(net: Any, sample: Sample, density: float, magnitude: bool) -> torch.Tensor:
    """Return the level of each MLP site that leaves `density` of the values above it, float32[sites].

    Parameters
    ----------
    net : torch.nn.Module
        The model with its own activation functions.
    sample : Sample
        Training data.
    density : float
        Share to keep.
    magnitude : bool
        Whether ``|f(x)|`` is compared, not the pre-activation x.

    Notes
    -----
    All layers are calibrated on the unchanged model. A shift moves what later layers see, so the density after the swap
    is near the target, not at it; the measurements hold the true one.
    """
    import torch as th

    sites = find_sites(net)
    kept: list[list[torch.Tensor]] = [[] for _ in sites]
    mask: list[torch.Tensor] = []

    def watch(into: list[torch.Tensor]) -> Any:
        def hook(_module: Any, inputs: Any, output: Any) -> None:
            values = output.abs() if magnitude else inputs[0]
            into.append(values[mask[-1]].flatten() if values.dim() == 3 else values.flatten())

        return hook

    handles = [activation_of(net, s).register_forward_hook(watch(k)) for s, k in zip(sites, kept, strict=True)]
    try:
        with th.no_grad():
            for batch in sample.batches(*CALIBRATION):
                mask.append(batch.mask)
                net(**batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    levels = []
    for values in kept:
        flat = th.cat(values)
        flat = flat[:: max(1, len(flat) // QUANTILE_VALUES)]
        levels.append(flat.sort().values[min(len(flat) - 1, int((1.0 - density) * len(flat)))])
    return th.stack(levels)


def build(activation: Activation, own: Any, level: float | None = None) -> Any:
    """Return the module that stands in for the model's own activation function."""
    import torch

    from .layers import activations

    makers = {
        "relu": torch.nn.ReLU,
        "shifted_relu": lambda: activations.ShiftedReLU(activation.shift if level is None else level),
        "relu2": activations.SquaredReLU,
        "threshold": lambda: activations.Thresholded(own, activation.threshold if level is None else level),
    }
    return makers[activation.type]()
