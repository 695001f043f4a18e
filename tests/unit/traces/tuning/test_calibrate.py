"""Thresholds calibrated to a density: by magnitude or contribution, sloped over depth, for every kind of MLP."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_refit import lively, sample_of

from traces.models.sites import find_sites
from traces.tuning import Activation
from traces.tuning.methods.relufy import activation_of, calibrate


def every(net: Any, batch: Any, module: str, entering: bool) -> list[torch.Tensor]:
    """What enters or leaves a module at each of its calls, on real tokens."""
    kept: list[torch.Tensor] = []
    target = net.get_submodule(module)
    handle = target.register_forward_hook(lambda _m, given, out: kept.append(given[0] if entering else out))
    with torch.no_grad():
        net(**batch.inputs)
    handle.remove()
    return [one.reshape(-1, one.shape[-1])[batch.real_at(module).flatten()] for one in kept]


def after(net: Any, batch: Any, module: str, entering: bool) -> torch.Tensor:
    """What enters or leaves a module at its first call."""
    return every(net, batch, module, entering)[0]


@pytest.mark.parametrize("family", ["llama", "qwen3", "bert", "gpt2", "opt", "t5", "t5-gated", "albert"])
def test_every_family_is_left_the_density_asked_for(family: str) -> None:
    net, (batch, sample) = lively(family), sample_of(family)
    for by in (None, "contribution"):
        part = Activation(type="threshold", density=0.3, by=by)
        decided = calibrate(net, sample, part)
        swapped = lively(family)
        part.change().apply(swapped, "causal-lm", decided)
        first = find_sites(swapped)[0]
        ones = [m != 0 for m in every(swapped, batch, str(first.activation), False)]
        # layers that share weights share a level, and the swap moves what the second call sees
        within = 0.01 if len(ones) == 1 else 0.06
        assert torch.cat(ones).float().mean() == pytest.approx(0.3, abs=within)
        # the same threshold for all neurons, or one for each: then they are as different as their shares
        assert ("share.0" in decided) == (by is not None)


def test_a_neuron_counts_by_its_partner_and_its_column() -> None:
    net, (batch, sample) = lively("llama"), sample_of("llama")
    site = find_sites(net)[0]
    mlp = net.get_submodule(site.module.rpartition(".")[0])
    with torch.no_grad():
        mlp.up_proj.weight[0] *= 50  # what multiplies neuron 0
        mlp.down_proj.weight[:, 1] *= 50  # what neuron 1 is multiplied with
        mlp.up_proj.weight[2] *= 0
    share = calibrate(net, sample, Activation(type="threshold", density=0.3, by="contribution"))["share.0"]
    up = after(net, batch, site.module.replace("down_proj", "up_proj"), False)
    own = after(net, batch, str(site.activation), False)
    used = own.abs() > 1e-4 * own.abs().max()
    squares = torch.stack([up[used[:, j], j].square().mean() for j in range(site.k)])
    wanted = squares.sqrt() * mlp.down_proj.weight.norm(dim=0)
    assert torch.allclose(share, wanted / wanted.mean(), rtol=1e-3, atol=1e-6)
    assert share[2] == 0
    assert share.mean() == pytest.approx(1)


def test_contribution_loses_less_of_a_blocks_output_than_magnitude() -> None:
    """At the same density, the down-projection's output is nearer to what it was."""
    net, (batch, sample) = lively("llama"), sample_of("llama")
    site = find_sites(net)[0]
    with torch.no_grad():
        up = net.get_submodule(site.module.replace("down_proj", "up_proj"))
        up.weight *= torch.logspace(-1, 1, site.k)[torch.randperm(site.k)][:, None]
    wanted = after(net, batch, site.module, False)
    lost = []
    for by in (None, "contribution"):
        part = Activation(type="threshold", density=0.3, by=by)
        own = [activation_of(net, s) for s in find_sites(net)]
        part.change().apply(net, "causal-lm", calibrate(net, sample, part))
        lost.append(float((after(net, batch, site.module, False) - wanted).norm() / wanted.norm()))
        for s, module in zip(find_sites(net), own, strict=True):
            net.get_submodule(str(s.activation).rpartition(".")[0]).act_fn = module
    assert lost[1] < 0.8 * lost[0]


def test_a_slope_gives_first_layers_more_and_keeps_the_mean() -> None:
    part = Activation(type="threshold", density=0.3, slope=0.5)
    assert part.densities(3) == pytest.approx([0.45, 0.3, 0.15])
    assert part.densities(1) == pytest.approx([0.45])
    net, (batch, sample) = lively("llama"), sample_of("llama")
    levels = calibrate(net, sample, part)["level"]
    for site, level, density in zip(find_sites(net), levels, part.densities(2), strict=True):
        values = after(net, batch, str(site.activation), False).abs()
        assert (values > level).float().mean() == pytest.approx(density, abs=0.005)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"type": "relu", "density": 0.2}, "'relu' has nothing to calibrate"),
        ({"type": "threshold", "threshold": 0.1, "by": "contribution"}, "give one"),
        ({"type": "threshold", "threshold": 0.1, "slope": 0.2}, "give one"),
        ({"type": "shifted_relu", "density": 0.2, "by": "contribution"}, "is for type: threshold"),
        ({"type": "threshold", "density": 0.8, "slope": 0.4}, "lower either"),
        ({"type": "threshold", "density": 0.3, "by": "luck"}, "contribution"),
    ],
)
def test_what_cannot_be_calibrated_is_said_when_it_is_written(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Activation(**given)


def test_what_is_not_given_changes_no_hash() -> None:
    assert Activation(type="threshold", density=0.3).model_dump(exclude_none=True).keys() == {
        "type",
        "shift",
        "threshold",
        "density",
    }


def test_layers_that_share_an_activation_are_shifted_once() -> None:
    net = lively("albert")
    part = Activation(type="shifted_relu", shift=0.5)
    part.change().apply(net, "classification", {})
    sites = find_sites(net)
    assert len(sites) == 2
    assert len({site.activation for site in sites}) == 1
    x = torch.linspace(-2, 2, 9)
    assert torch.equal(activation_of(net, sites[0])(x), torch.relu(x - 0.5))
