"""What training and recording feed a model: tokens, pairs and pixels, with the labels of each task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import build
from tiny_models import write_tokenizer

from traces.data.inputs import ImageInputs, prepare
from traces.data.items import IGNORED, shift_right
from traces.data.load import Split
from traces.errors import InputError
from traces.models.load import load_model

TEXTS = ("good film", "the plot is dull", "bad", "fine actor was slow")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a tiny decoder, encoder-decoder and vision model."""
    folder = tmp_path_factory.mktemp("inputs")
    for family in ("gpt2", "t5", "vit", "dinov2"):
        build(family).save_pretrained(folder / family)
        if family in ("gpt2", "t5"):
            write_tokenizer(folder / family)
        else:
            facts = '{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5], "image_processor_type": "x"}'
            (folder / family / "preprocessor_config.json").write_text(facts)
    return {p.name: str(p) for p in folder.iterdir()}


@pytest.mark.parametrize(
    ("task", "labels", "dtype"),
    [("classification", (0, 1, 1, 0), torch.int64), ("regression", (0.5, -1.0, 2.0, 0.0), torch.float32)],
)
def test_text_with_labels(tiny_model: str, task: str, labels: tuple[float, ...], dtype: torch.dtype) -> None:
    inputs = prepare(tiny_model, task, Split(TEXTS, labels), 5)
    assert inputs.lengths == [4, 5, 3, 5]  # [CLS] and [SEP], cut at five
    batch = inputs.batch([2, 0])
    assert batch.rows.tolist() == [2, 0]
    assert batch.labels.dtype == dtype
    assert batch.labels.tolist() == [labels[2], labels[0]]
    assert batch.real.tolist() == [[True] * 3 + [False], [True] * 4]
    assert torch.equal(batch.inputs["attention_mask"], batch.real.long())
    assert batch.real_at("layers.0.down") is batch.real
    left = inputs.batch([2, 0], "left")
    assert left.real.tolist() == [[False] + [True] * 3, [True] * 4]


def test_causal_labels_are_the_ids_without_padding(saved: dict[str, str]) -> None:
    batch = prepare(saved["gpt2"], "causal-lm", Split(TEXTS, None), 64).batch([0, 1])
    assert torch.equal(batch.labels == IGNORED, ~batch.real)
    assert torch.equal(batch.labels[batch.real], batch.inputs["input_ids"][batch.real])
    model = load_model(saved["gpt2"], "causal-lm")
    one = prepare(saved["gpt2"], "causal-lm", Split(TEXTS[:1], None), 64).batch([0])
    with torch.no_grad():
        output = model(**one.inputs, labels=one.labels)
    wanted = torch.nn.functional.cross_entropy(output.logits[0, :-1], one.inputs["input_ids"][0, 1:])
    assert torch.isclose(output.loss, wanted)


def test_pairs_give_each_stack_its_own_mask(saved: dict[str, str]) -> None:
    inputs = prepare(saved["t5"], "seq2seq", Split(TEXTS, ("bad plot", "good", "slow film is fine", "")), 64)
    batch = inputs.batch([1, 3, 0])
    assert batch.real_at("encoder.layers.0.down").shape == (3, 6)
    assert batch.real_at("decoder.layers.1.down").tolist() == [
        [True] * 3 + [False],
        [True] * 2 + [False] * 2,
        [True] * 4,
    ]
    with pytest.raises(InputError, match="in no stack"):
        batch.real_at("lm_head")
    assert batch.inputs["decoder_input_ids"][:, 0].tolist() == [0, 0, 0]
    assert torch.equal(batch.labels == IGNORED, ~batch.real_at("decoder.x"))
    model = load_model(saved["t5"], "seq2seq")
    with torch.no_grad():  # the model's own shift of the labels gives the same loss
        ours = model(**batch.inputs, labels=batch.labels).loss
        rest = {k: v for k, v in batch.inputs.items() if k != "decoder_input_ids"}
        assert torch.isclose(ours, model(**rest, labels=batch.labels).loss)


def test_pairs_without_targets_start_the_decoder(saved: dict[str, str]) -> None:
    batch = prepare(saved["t5"], "seq2seq", Split(TEXTS, None), 64).batch([0, 1])
    assert batch.labels is None
    assert batch.inputs["decoder_input_ids"].tolist() == [[0], [0]]


def test_shift_right() -> None:
    shifted, labels, mask = shift_right([[5, 6, 7], [8]], 0, 1)
    assert shifted.tolist() == [[1, 5, 6], [1, 0, 0]]
    assert labels.tolist() == [[5, 6, 7], [8, IGNORED, IGNORED]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]


@pytest.mark.parametrize("family", ["vit", "dinov2"])
@pytest.mark.parametrize(("max_length", "tokens", "side"), [(64, 10, 12), (9, 5, 8), (5, 5, 8)])
def test_images_become_a_grid_within_the_tokens(
    saved: dict[str, str], family: str, max_length: int, tokens: int, side: int
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 10, 10), dtype=np.uint8)
    inputs = prepare(saved[family], "image-classification", Split(images, (0, 1, 0, 1), "images"), max_length)
    batch = inputs.batch([3, 1])
    assert inputs.lengths == [tokens] * 4
    assert batch.inputs["pixel_values"].shape == (2, 3, side, side)
    assert batch.real.shape == (2, tokens)
    assert batch.labels.tolist() == [1, 1]
    model = load_model(saved[family], "image-classification")
    with torch.no_grad():
        output = model(**batch.inputs, output_hidden_states=True)
    assert output.hidden_states[-1].shape[1] == tokens


def test_pixels_are_normalised_as_the_model_was_trained(saved: dict[str, str], tmp_path: Path) -> None:
    from PIL import Image

    grey = np.full((1, 9, 7), 51, dtype=np.uint8)
    pixels = prepare(saved["vit"], "features", Split(grey, None, "images")).batch([0]).inputs["pixel_values"][0]
    for channel, (mean, deviation) in enumerate(((0.5, 0.2), (0.4, 0.25), (0.3, 0.5))):
        assert torch.allclose(pixels[channel], torch.tensor((0.2 - mean) / deviation), atol=1e-5)
    Image.fromarray(grey[0]).save(tmp_path / "a.png")
    split = Split((str(tmp_path / "a.png"),), None, "images")
    assert torch.equal(prepare(saved["vit"], "features", split).batch([0]).inputs["pixel_values"][0], pixels)
    (tmp_path / "b.png").write_bytes(b"no image")
    broken = ImageInputs((str(tmp_path / "b.png"),), 10, 12, [0.5] * 3, [0.5] * 3)
    with pytest.raises(InputError, match=r"b\.png.*cannot be read"):
        broken.batch([0])


def test_what_does_not_fit_is_refused(saved: dict[str, str], tiny_model: str) -> None:
    images = Split(np.zeros((2, 8, 8), dtype=np.uint8), (0, 1), "images")
    with pytest.raises(InputError, match="takes text and this data set holds images"):
        prepare(tiny_model, "classification", images)
    with pytest.raises(InputError, match="takes images and this data set holds text"):
        prepare(saved["vit"], "image-classification", Split(TEXTS, None))
    with pytest.raises(InputError, match="at least 2 tokens"):
        prepare(saved["vit"], "image-classification", images, 1)
    with pytest.raises(InputError, match="needs classes"):
        prepare(tiny_model, "classification", Split(TEXTS, (0.5, 1.0, 2.0, 0.0)))
    with pytest.raises(InputError, match="needs numbers"):
        prepare(tiny_model, "regression", Split(TEXTS, ("a", "b", "c", "d")))
    with pytest.raises(InputError, match="needs target texts"):
        prepare(saved["t5"], "seq2seq", Split(TEXTS, (0, 1, 0, 1)))


def test_fingerprint_follows_what_the_model_sees(saved: dict[str, str], tiny_model: str) -> None:
    images = np.zeros((2, 8, 8), dtype=np.uint8)
    first = prepare(saved["vit"], "features", Split(images, None, "images"))
    images = images.copy()
    images[1, 2, 3] = 1
    assert first.fingerprint() != prepare(saved["vit"], "features", Split(images, None, "images")).fingerprint()
    short = prepare(tiny_model, "features", Split(TEXTS, None), 4).fingerprint()
    assert short != prepare(tiny_model, "features", Split(TEXTS, None), 5).fingerprint()
