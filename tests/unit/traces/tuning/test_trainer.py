"""The training loop: every task, distillation, early stopping, calibrated activations, choices that are kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_families import build
from tiny_models import write_tokenizer

import traces
from traces.data.inputs import prepare
from traces.data.load import load_data
from traces.errors import CorruptError, InputError
from traces.models.load import load_model
from traces.models.sites import find_sites
from traces.tuning import (
    Activation,
    DensityLoss,
    Distil,
    FullTuning,
    LoRA,
    NoModule,
    Training,
    Tuning,
    load_tuned,
    tune,
)
from traces.tuning.activations import of_tokens
from traces.tuning.layers.activations import ShiftedReLU
from traces.tuning.methods.density import factors
from traces.tuning.score import Scores
from traces.tuning.spec import tuning_from_yaml
from traces.tuning.trainer import Trainer

QUICK = Training(epochs=1, batch_size=16, lr=5e-3, max_length=16)
SMALL = Tuning(name="small", module=LoRA(r=2), activation=Activation(type="relu"), train=QUICK)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a randomly initialised two-layer Llama with the words' tokenizer."""
    place = tmp_path_factory.mktemp("llama") / "tiny-llama"
    torch.manual_seed(0)
    build("llama").save_pretrained(place)
    write_tokenizer(place)
    return str(place)


def test_language_model_is_tuned_by_next_tokens(tiny_llama: str, tiny_data: str, tmp_path: Path) -> None:
    plan = SMALL.model_copy(
        update={"module": FullTuning(), "train": QUICK.model_copy(update={"epochs": 4, "lr": 0.01})}
    )
    result = tune(tiny_llama, tiny_data, plan, tmp_path / "lm", progress=False)
    measured = result.measurements
    assert measured["task"] == "causal-lm"
    net, _ = load_tuned(result.path)
    held_out = prepare(tiny_llama, "causal-lm", load_data(tiny_data, label=None).test, 16)
    total = count = 0.0
    for row in range(len(held_out)):
        ids = held_out.batch([row]).inputs["input_ids"]
        with torch.no_grad():
            logits = net(input_ids=ids).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    assert measured["test_tokens"] == count
    assert measured["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-3)
    assert measured["perplexity"] < 40  # 97 words, of which a text uses 18
    assert measured["perplexity_se"] > 0
    assert 0 < measured["density"] < 1


def test_a_gated_mlp_can_be_penalised_at_the_gate(tiny_llama: str, tiny_data: str, tmp_path: Path) -> None:
    densities = []
    for weight in (0.0, 0.1):
        loss = DensityLoss(weight=weight, surrogate="tanh", beta=5, at="gate")
        plan = SMALL.model_copy(update={"name": f"w{weight}", "density": loss, "method": "density"})
        densities.append(tune(tiny_llama, tiny_data, plan, tmp_path / plan.name, progress=False).density)
    assert densities[1] < densities[0] - 0.05


def test_perplexity_error_is_the_ratio_estimators() -> None:
    scores = Scores("causal-lm")
    rng = np.random.default_rng(0)
    count = rng.integers(5, 30, 400).astype(float)
    loss = count * 2.0 + rng.normal(0, 1, 400) * np.sqrt(count)
    scores._rows = [(float(a), 0.0, float(b)) for a, b in zip(loss, count, strict=True)]
    found = scores.result()
    # the sum of independent token losses of variance 1 has a standard error of 1 / sqrt(tokens)
    assert found["perplexity"] == pytest.approx(math.exp(2.0), rel=0.05)
    assert found["perplexity_se"] / found["perplexity"] == pytest.approx(1 / math.sqrt(count.sum()), rel=0.15)


@pytest.mark.slow
def test_teacher_pulls_the_outputs_towards_its_own(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.yaml"
    longer = QUICK.model_copy(update={"epochs": 5, "lr": 0.02})
    teacher.write_text(Tuning(name="teacher", module=LoRA(r=2), train=longer).to_yaml())
    # the teacher alone, no labels: what is learnt can come from nowhere else
    distil = Distil(teacher=str(teacher), weight=1.0, temperature=1.0)
    plan = SMALL.model_copy(update={"name": "taught", "distil": distil, "train": longer})
    still = SMALL.model_copy(update={"train": QUICK.model_copy(update={"lr": 1e-12})})
    taught, untaught = (tune(tiny_model, tiny_data, p, tmp_path / p.name, progress=False) for p in (plan, still))
    assert (tmp_path / "teacher" / "measurements.json").is_file()
    batch = prepare(tiny_model, "classification", load_data(tiny_data).test, 16).batch(range(24))

    def probabilities(folder: Path) -> torch.Tensor:
        with torch.no_grad():
            return load_tuned(folder)[0](**batch.inputs).logits.softmax(-1)

    wanted = probabilities(tmp_path / "teacher")
    gaps = [float((probabilities(r.path) - wanted).abs().mean()) for r in (taught, untaught)]
    assert gaps[0] < 0.5 * gaps[1]


def test_early_stopping_keeps_the_best_weights(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    train = QUICK.model_copy(update={"epochs": 30, "patience": 2, "eval_every": 5, "lr": 0.05})
    plan = SMALL.model_copy(update={"train": train})
    run_steps: list[int] = []
    step = Trainer._step

    def counted(self: Trainer, index: int, *rest: object) -> object:
        run_steps.append(index)
        return step(self, index, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", counted)
        result = tune(tiny_model, tiny_data, plan, tmp_path / "early", progress=False)
    assert len(run_steps) < 30 * 13
    assert result.measurements["train_samples"] == round(0.9 * 216)
    assert len(run_steps) % 5 == 0  # it stops at a validation
    small = plan.model_copy(update={"train": train.model_copy(update={"validation_fraction": 0.99})})
    with pytest.raises(InputError, match=r"validation_fraction .* leaves no rows"):
        tune(tiny_model, tiny_data, small, tmp_path / "none", limit=3, progress=False)


def test_bf16_on_a_processor_is_near_fp32_with_weights_in_fp32(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    logs, weights = {}, {}
    for precision in ("fp32", "bf16", "fp16"):
        train = QUICK.model_copy(update={"precision": precision})
        done = tune(
            tiny_model, tiny_data, SMALL.model_copy(update={"train": train}), tmp_path / precision, progress=False
        )
        logs[precision] = pd.read_parquet(done.path / "log.parquet")["loss"].to_numpy()
        net, _ = load_tuned(done.path)
        weights[precision] = torch.cat([p.flatten() for p in net.parameters()])
    assert weights["bf16"].dtype == torch.float32
    assert not torch.equal(weights["bf16"], weights["fp32"])
    np.testing.assert_allclose(logs["bf16"], logs["fp32"], rtol=0.05)
    assert torch.equal(weights["fp16"], weights["fp32"])  # a processor has no fp16 to be quick with


def test_accumulated_batches_give_the_gradient_of_one_large_batch(
    tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    # rows of one length: the mean over two halves is the mean over the whole
    path = tmp_path / "even.csv"
    lines = [f"{'good' if i % 2 else 'bad'} film the plot,{i % 2}" for i in range(72)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    losses = []
    for size, accumulate in ((32, 1), (16, 2)):
        train = QUICK.model_copy(update={"batch_size": size, "accumulate": accumulate, "bucket": 64})
        plan = SMALL.model_copy(update={"name": f"b{size}", "train": train})
        result = tune(tiny_model, str(path), plan, tmp_path / plan.name, progress=False)
        losses.append(result.measurements["steps"])
    assert losses[0] == losses[1] == 3


@pytest.mark.parametrize("kind", ["shifted_relu", "threshold"])
def test_calibrated_activations_leave_the_density_asked_for(
    kind: str, tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    still = QUICK.model_copy(update={"lr": 1e-12})
    part = Activation(type=kind, density=0.25)  # type: ignore[arg-type]
    plan = Tuning(name=kind, method="relufy", module=NoModule(), activation=part, train=still)
    result = tune(tiny_model, tiny_data, plan, tmp_path / kind, progress=False)
    # the first layer's input is what it was calibrated on; held-out words are the same few
    assert result.measurements["density_per_layer"][0] == pytest.approx(0.25, abs=0.03)
    assert len(set(result.measurements["activation_levels"])) == 2
    net, _ = load_tuned(result.path)
    levels = [getattr(net.get_submodule(s.activation), "shift", None) for s in find_sites(net)]
    if kind == "shifted_relu":
        assert levels == pytest.approx(result.measurements["activation_levels"])
    again = traces.record(tiny_model, result.path, tiny_data, 16, tmp_path / "t.zarr", progress=False)
    assert again.sites["layers.0.down"].density() == pytest.approx(0.25, abs=0.04)


def test_choices_are_kept_for_a_resumed_run_and_belong_to_it(
    tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Activation(type="shifted_relu", density=0.25)
    plan = SMALL.model_copy(update={"activation": part})

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(tiny_model, tiny_data, plan, tmp_path / "r", progress=False)
    kept = (tmp_path / "r" / "decided.safetensors").read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("chosen twice")

    with monkeypatch.context() as patch:
        patch.setattr("traces.tuning.methods.relufy.calibrate", never)
        tune(tiny_model, tiny_data, plan, tmp_path / "r", progress=False)
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "decided.safetensors").write_bytes(kept)
        with pytest.raises(AssertionError, match="chosen twice"):
            tune(tiny_model, tiny_data, plan.model_copy(update={"seed": 3}), tmp_path / "s", progress=False)
    (tmp_path / "r" / "decided.safetensors").write_bytes(kept[:40])
    with pytest.raises(CorruptError, match="decided"):
        load_tuned(tmp_path / "r")


def test_factors_of_layers_and_stacks() -> None:
    encoder = find_sites(build("bert"))
    assert factors(encoder, DensityLoss()) == [0.5, 0.5]
    assert factors(encoder, DensityLoss(layers=(2.0, 0.0))) == [1.0, 0.0]
    with pytest.raises(InputError, match="has 3 factors, the model has 2 MLP sites"):
        factors(encoder, DensityLoss(layers=(1.0, 1.0, 1.0)))
    both = find_sites(build("t5"))
    assert factors(both, DensityLoss(weight_encoder=0.5, weight_decoder=4.0)) == [0.25, 0.25, 2.0, 2.0]


def test_virtual_tokens_do_not_count() -> None:
    value = torch.arange(2 * 5 * 3).reshape(2, 5, 3).float()
    keep = torch.tensor([[True, True, False], [True, False, False]])
    assert torch.equal(of_tokens(value, keep), torch.stack([value[0, 2], value[0, 3], value[1, 2]]))
    assert torch.equal(of_tokens(value.reshape(10, 3), keep), of_tokens(value, keep))


def test_nothing_to_train_and_no_head_are_said_at_once(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no head to tune"):
        tune(tiny_model, tiny_data, SMALL, tmp_path / "x", task="features", progress=False)
    assert not (tmp_path / "x").exists()
    assert isinstance(load_model(tiny_model).get_submodule("bert.encoder.layer.0.intermediate"), torch.nn.Module)
    with pytest.raises(InputError, match="'typo' is not known"):
        traces.load_tuning("typo")
    with pytest.raises(ValueError, match=r"type 'lorra' is not known.*did you mean 'lora'"):
        Tuning.model_validate({"name": "x", "module": {"type": "lorra"}})


def test_shift_is_what_the_measurements_say(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    plan = SMALL.model_copy(update={"activation": Activation(type="shifted_relu", shift=0.125)})
    result = tune(tiny_model, tiny_data, plan, tmp_path / "s", progress=False)
    net, _ = load_tuned(result.path)
    first = net.get_submodule(find_sites(net)[0].activation)
    assert isinstance(first, ShiftedReLU)
    assert first.shift == 0.125
    assert "activation_levels" not in json.loads((result.path / "measurements.json").read_text())


def test_a_start_whose_weights_do_not_fit_is_refused_before_anything_is_chosen(
    tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tune(tiny_model, tiny_data, SMALL.model_copy(update={"module": LoRA(r=2)}), tmp_path / "a", progress=False)
    monkeypatch.setattr(
        "traces.tuning.methods.relufy.calibrate", lambda *_: pytest.fail("chosen before it was refused")
    )
    part = Activation(type="threshold", density=0.3)
    for module, said in ((LoRA(r=4), "r 2 and 4"), (NoModule(), "type lora and none")):
        plan = SMALL.model_copy(update={"module": module, "activation": part})
        with pytest.raises(InputError, match=f"do not fit its module .{said}."):
            tune(tiny_model, tiny_data, plan, tmp_path / "b", init=start.path, progress=False)


def test_a_tuning_saved_under_former_field_names_still_loads() -> None:
    tuning = tuning_from_yaml("name: old\ntrain: {patience: 2, look_every: 7, set_aside: 0.2}\n", "old.yaml")
    assert (tuning.train.eval_every, tuning.train.validation_fraction) == (7, 0.2)
