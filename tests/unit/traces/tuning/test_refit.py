"""Down-projections fitted to swapped activations: least squares by another road, every family, and through tuning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_families import build, inputs
from tiny_tuning import measured_again

from traces.data.batches import Batch
from traces.errors import InputError
from traces.models.sites import find_sites
from traces.tuning import Activation, LoRA, Training, Tuning, tune
from traces.tuning.change import Sample
from traces.tuning.methods.adapter import Adapter
from traces.tuning.methods.relufy import activation_of
from traces.tuning.refit import RIDGE

QUICK = Training(epochs=1, batch_size=16, lr=1e-3, max_length=16)
Array = NDArray[np.float64]


def sample_of(family: str, items: int = 64, length: int = 12) -> tuple[Batch, Sample]:
    """Random inputs of a family, the last third of every second item padded."""
    torch.manual_seed(5)
    given = inputs(family, items, length)
    mask = torch.ones((items, length), dtype=torch.bool)
    mask[::2, -(length // 3) :] = False
    target = given.get("decoder_input_ids")
    both = {} if target is None else {"encoder": mask, "decoder": torch.ones(target.shape, dtype=torch.bool)}
    batch = Batch(np.arange(items), given | {"attention_mask": mask.long()}, mask, stacks=both)

    def batches(count: int, size: int) -> Iterator[Batch]:
        yield from [batch] * count

    return batch, Sample(batches, lambda *_: pytest.fail("a fit needs no loss"), "classification", 0)


def lively(family: str) -> Any:
    """A tiny model whose activations are far from linear: at their initial size GELU of anything is half of it."""
    net = build(family).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return net


def seen(net: Any, module: str, batch: Batch) -> tuple[Array, Array]:
    """What enters and leaves a module on the real tokens of a batch."""
    kept: list[tuple[Array, Array]] = []

    def hook(_module: Any, given: Any, output: Any) -> None:
        kept.append((given[0][batch.real].double().numpy(), output[batch.real].double().numpy()))

    handle = net.get_submodule(module).register_forward_hook(hook)
    with torch.no_grad():
        net(**batch.inputs)
    handle.remove()
    return kept[0]


def test_the_fit_is_that_of_numpys_least_squares() -> None:
    net, (batch, sample) = lively("bert"), sample_of("bert")
    part = Activation(type="threshold", density=0.3, refit="weights")
    first = find_sites(net)[0]
    _, wanted = seen(net, first.module, batch)
    decided = part.change().decide(net, sample)
    swapped = Activation(type="threshold", density=0.3).change()
    swapped.apply(net, "classification", {"level": decided["level"]})
    x, now = seen(net, first.module, batch)

    rows = np.vstack([np.hstack([x, np.ones((len(x), 1))]), np.eye(first.k, first.k + 1)])
    rows[len(x) :] *= np.sqrt(RIDGE * (len(x) * x.var(0)).mean())  # the bias, in the last column, is free
    goal = np.vstack([wanted - now, np.zeros((first.k, first.n))])
    answer = np.linalg.lstsq(rows, goal, rcond=None)[0]
    weight, bias = decided["weight.0"].numpy(), decided["bias.0"].numpy()
    np.testing.assert_allclose(weight, answer[:-1].T, rtol=2e-3, atol=2e-4 * abs(answer).max())
    np.testing.assert_allclose(bias, answer[-1], rtol=2e-3, atol=2e-4 * abs(answer).max())


def test_a_bias_takes_the_mean_of_what_is_lost() -> None:
    net, (batch, sample) = lively("bert"), sample_of("bert")
    first = find_sites(net)[0]
    _, wanted = seen(net, first.module, batch)
    change = Activation(type="relu", refit="bias").change()
    decided = change.decide(net, sample)
    assert sorted(decided) == ["bias.0", "bias.1"]
    _, now = seen(change.apply(net, "classification", decided), first.module, batch)
    np.testing.assert_allclose((wanted - now).mean(0), 0, atol=1e-4 * abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert", "llama", "gpt2", "opt", "t5", "modernbert", "qwen2"])
def test_the_model_gives_more_nearly_what_it_gave(family: str) -> None:
    batch, sample = sample_of(family)
    net = lively(family)
    own = [activation_of(net, site) for site in find_sites(net)]
    before = {name: p.clone() for name, p in net.named_parameters()}

    def result(part: Activation | None) -> Any:
        changed = lively(family)
        changed.load_state_dict(net.state_dict())
        if part is not None:
            change = part.change()
            changed = change.apply(changed, "classification", change.decide(changed, sample))
        with torch.no_grad():
            return changed(**batch.inputs)[0]

    part = Activation(type="threshold", density=0.2, refit="weights")
    part.change().decide(net, sample)
    for name, parameter in net.named_parameters():  # deciding leaves the model alone
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)
    assert [activation_of(net, site) for site in find_sites(net)] == own
    wanted = result(None)
    bare = (result(Activation(type="threshold", density=0.2)) - wanted).norm()
    fitted = (result(part) - wanted).norm()
    assert fitted < 0.9 * bare


def test_it_goes_through_tuning_and_loading(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    activation = Activation(type="threshold", density=0.3, refit="weights")
    first = Tuning(name="first", module=LoRA(r=2), train=QUICK)
    start = tune(tiny_model, tiny_data, first, tmp_path / "first", progress=False).path
    plan = first.model_copy(
        update={"name": "fitted", "method": "relufy", "activation": activation, "init_from": "first"}
    )
    result = tune(tiny_model, tiny_data, plan, tmp_path / "fitted", init=start, progress=False)
    again = measured_again(result, merge=True)
    assert again["accuracy"] == result.accuracy
    assert again["density"] == pytest.approx(result.density, abs=1e-3)
    assert 0.2 < result.density < 0.4

    # the next one takes the fit over; another activation would lose it
    still = plan.model_copy(update={"name": "third", "train": QUICK.model_copy(update={"lr": 1e-12})})
    third = tune(tiny_model, tiny_data, still, tmp_path / "third", init=result.path, progress=False)
    assert third.accuracy == result.accuracy
    assert third.density == pytest.approx(result.density, abs=1e-3)
    other = plan.model_copy(update={"name": "other", "activation": Activation(type="relu")})
    with pytest.raises(InputError, match="starts from 'fitted', whose activation it does not share"):
        tune(tiny_model, tiny_data, other, tmp_path / "other", init=result.path, progress=False)


def test_a_tuning_with_adapters_around_its_layers_can_be_fitted(
    tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    first = Tuning(name="first", method="adapter", module=Adapter(reduction=4), train=QUICK)
    start = tune(tiny_model, tiny_data, first, tmp_path / "first", progress=False)
    still = QUICK.model_copy(update={"lr": 1e-12})
    accuracies = {}
    for refit in (None, "weights"):
        part = Activation(type="threshold", density=0.3, refit=refit)
        plan = first.model_copy(update={"name": str(refit), "activation": part, "init_from": "first", "train": still})
        done = tune(tiny_model, tiny_data, plan, tmp_path / str(refit), init=start.path, progress=False)
        accuracies[refit] = done.accuracy
        assert 0.2 < done.density < 0.4
        assert measured_again(done, merge=True)["accuracy"] == done.accuracy
    assert abs(accuracies["weights"] - start.accuracy) <= abs(accuracies[None] - start.accuracy)


def test_what_does_not_fit_is_said() -> None:
    _, sample = sample_of("llama")
    with pytest.raises(InputError, match=r"mlp.down_proj has no bias; use refit: weights"):
        Activation(type="relu", refit="bias").change().decide(build("llama"), sample)
    _, sample = sample_of("albert")
    with pytest.raises(InputError, match="share a down-projection"):
        Activation(type="relu", refit="weights").change().decide(build("albert"), sample)
