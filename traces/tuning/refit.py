"""Closed-form refit of the down-projections to a sparser activation, without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from .activations import of_tokens
from .layers.lowrank import as_kept, matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from ..data.batches import Batch
    from ..models.sites import MLPSite
    from .change import Sample

Kind = Literal["bias", "weights"]
TOKENS_PER_INPUT = 10  # equations for each unknown; with 4, smollm2-135m came to a perplexity of 110, with 10 to 91
MOST_TOKENS = 32_768  # what is held of the widest layer's input at once, whatever its width
RIDGE = 0.02  # of the mean of X^T X's diagonal, for neurons that hardly ever fire


class _Done(Exception):
    """The last site was seen: what follows, such as a language model's logits, is not needed."""


def refit(
    net: Any, sites: Sequence[MLPSite], sample: Sample, swap: Callable[[], None], kind: Kind
) -> dict[str, torch.Tensor]:
    """Return what to add to the down-projections' biases or weights for the activations that `swap` puts in.

    With X (M, K) the swapped activations that enter a down-projection and Y (M, N) what it gave before::

        bias:     b += mean of Y - (X W^T + b)
        weights:  dW = argmin |Y - X (W + dW)^T - b|^2 + ridge |dW|^2, X and Y less their means;  then the bias

    A layer is fitted on what the layers before it give after their own fit, so errors do not add up. Tokens count as
    they are: divided by the length of their row of Y, the fit lost the few huge activations that language models put
    on a first token and that all others attend to.

    Parameters
    ----------
    net : torch.nn.Module
        The model before the swap. Its weights are what they were when this returns; its activations are swapped.
    sites : sequence of MLPSite
        In execution order.
    sample : Sample
        Training data; only its inputs are used.
    swap : callable
        Swaps the activation functions of `net`.
    kind : {"bias", "weights"}
        What is fitted; of weights, the biases too where there are any.

    Returns
    -------
    dict
        ``bias.SITE`` float32[N] and ``weight.SITE`` in the module's own layout, differences from what is there; SITE
        counts from 0 in the order given, for names differ where adapters stand around a layer.

    Raises
    ------
    InputError
        If layers share a down-projection, or `kind` is ``bias`` and a down-projection has none.

    References
    ----------
    The mean of what is lost, moved into the bias: Nagel et al., arXiv 1906.04721, section 4.2. Least squares for a
    layer's output: He et al., arXiv 1707.06168; with the inputs of the changed model: Frantar et al., arXiv 2208.11580.
    """
    import torch as th

    downs = {site.name: _bare(net, site) for site in sites}
    if len({id(d) for d in downs.values()}) < len(sites):
        raise InputError("activation.refit: layers of this model share a down-projection; leave refit out")
    bare = next((s.module for s in sites if getattr(downs[s.name], "bias", None) is None), None)
    if kind == "bias" and bare is not None:
        raise InputError(f"activation.refit bias: {bare} has no bias; use refit: weights")
    batch = _tokens(sample, max(site.k for site in sites))
    targets: dict[str, torch.Tensor] = {}

    def watch(site: MLPSite) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            targets[site.name] = of_tokens(output, batch.real_at(site.name)).float()
            if site.name == sites[-1].name:
                raise _Done

        return hook

    def fit(site: MLPSite) -> Any:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            x = of_tokens(inputs[0], batch.real_at(site.name)).float()
            _solve(module, x, targets.pop(site.name), kind)
            if site.name == sites[-1].name:
                raise _Done
            again: torch.Tensor = module.forward(inputs[0])
            return again

        return hook

    found = {}
    with _restored(downs.values()) as before, th.no_grad():
        for make, prepare in ((watch, None), (fit, swap)):
            if prepare is not None:
                prepare()
            handles = [downs[site.name].register_forward_hook(make(site)) for site in sites]
            try:
                with suppress(_Done):
                    net(**batch.inputs)
            finally:
                for handle in handles:
                    handle.remove()
        for index, site in enumerate(sites):
            for name, parameter in downs[site.name].named_parameters():
                if name == "bias" or kind == "weights":
                    found[f"{name}.{index}"] = parameter - before[parameter]
    return found


def add(net: Any, sites: Sequence[MLPSite], fitted: Mapping[str, torch.Tensor]) -> None:
    """Add what `refit` returned to a model's down-projections."""
    import torch as th

    with th.no_grad():
        for name, tensor in fitted.items():
            what, _, index = name.partition(".")
            getattr(_bare(net, sites[int(index)]), what).add_(tensor)


def _bare(net: Any, site: MLPSite) -> Any:
    module = net.get_submodule(site.module)
    return getattr(module, "base_layer", module)


def _tokens(sample: Sample, widest: int) -> Batch:
    """Return one batch with about as many real tokens as the widest layer's fit asks for."""
    first = next(sample.batches(1, 8))
    each = max(1.0, float(first.real.sum()) / len(first.rows))
    return next(sample.batches(1, math.ceil(min(MOST_TOKENS, TOKENS_PER_INPUT * widest) / each)))


def _solve(module: Any, x: torch.Tensor, y: torch.Tensor, kind: Kind) -> None:
    """Fit one down-projection in place; see `refit`."""
    import torch as th

    bias = getattr(module, "bias", None)
    lost = y - x @ matrix(module).T
    if bias is not None:
        lost = lost - bias
    shift = lost.mean(0) if bias is not None else lost.new_zeros(lost.shape[1])
    if kind == "weights":
        middle = x.mean(0) if bias is not None else x.new_zeros(x.shape[1])
        inputs, outputs = x - middle, lost - shift
        gram = inputs.T @ inputs
        gram.diagonal().add_(RIDGE * float(gram.diagonal().mean()) + 1e-6)
        change = th.cholesky_solve(inputs.T @ outputs, th.linalg.cholesky(gram))
        module.weight.add_(as_kept(module, change.T))
        shift = shift - middle @ change
    if bias is not None:
        bias.add_(shift)


@contextmanager
def _restored(modules: Iterable[Any]) -> Iterator[Mapping[torch.nn.Parameter, torch.Tensor]]:
    """Yield weights and biases as they are, and put them back so."""
    import torch as th

    before = {p: p.detach().clone() for module in modules for p in module.parameters()}
    try:
        yield before
    finally:
        with th.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)
