"""Limits that data keep to: tokens with embeddings, and positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tiny_families import BUILDERS, PATCHES, SMALL
from tiny_models import WORDS, write_tokenizer

import traces
from traces.errors import InputError
from traces.models.limits import position_limits, vocabulary_size
from traces.models.load import load_model, load_tokenizer, padding_token


def saved(net: Any, folder: Path) -> str:
    net.save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


def words(path: Path, count: int, word: str = "good", rows: int = 40) -> str:
    """Write texts of so many words."""
    path.write_text("text\n" + "\n".join([" ".join([word] * count)] * rows) + "\n")
    return str(path)


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**(SMALL | {"num_key_value_heads": 1, "hidden_act": "relu"} | changes)))


@pytest.mark.parametrize(
    ("family", "limits"),
    [
        ("bert", {"": 64}),
        ("roberta", {"": 63}),  # its padding token is 0: positions count from 1
        ("electra", {"": 64}),
        ("albert", {"": 64}),
        ("distilbert", {"": 512}),
        ("esm", {}),
        ("modernbert", {}),
        ("opt", {"": 64}),
        ("gpt2", {"": 64}),
        ("llama", {}),
        ("t5", {}),
        ("bart", {"encoder": 64, "decoder": 64}),
        ("whisper", {"encoder": 10, "decoder": 64}),
    ],
)
def test_positions_of_every_family(family: str, limits: dict[str, int]) -> None:
    config = BUILDERS[family]().config
    if family == "roberta":
        config.pad_token_id = 0
    assert position_limits(config) == limits


def test_a_table_that_is_a_buffer_counts() -> None:
    config = hf.GPTJConfig(vocab_size=97, n_positions=32, n_embd=24, n_layer=2, n_head=3, rotary_dim=4)
    assert position_limits(config) == {"": 32}


@pytest.mark.parametrize(
    ("build", "length", "new", "fits"),
    [
        (lambda: hf.BertModel(hf.BertConfig(**SMALL)), 64, 0, True),
        (lambda: hf.BertModel(hf.BertConfig(**SMALL)), 65, 0, False),
        (lambda: hf.RobertaModel(hf.RobertaConfig(**(SMALL | {"max_position_embeddings": 66}))), 64, 0, True),
        (lambda: hf.RobertaModel(hf.RobertaConfig(**(SMALL | {"max_position_embeddings": 66}))), 65, 0, False),
        (BUILDERS["gpt2"], 59, 5, True),
        (BUILDERS["gpt2"], 60, 5, False),
        (BUILDERS["opt"], 62, 2, True),
        (BUILDERS["opt"], 63, 2, False),
        (llama, 80, 5, True),
    ],
)
def test_a_length_is_refused_where_the_positions_end(
    tmp_path: Path, build: Callable[[], Any], length: int, new: int, fits: bool
) -> None:
    model, data = saved(build(), tmp_path / "m"), words(tmp_path / "t.csv", 100)

    def record() -> traces.Trace:
        return traces.record(
            model, data=data, limit=2, max_length=length, new_tokens=new, out=tmp_path / "t.zarr", progress=False
        )

    if fits:
        assert record().n_tokens == 2 * (length + new)
        return
    with pytest.raises(InputError, match=f"has 64 positions.*--max-length {64 - new}"):
        record()
    assert not (tmp_path / "t.zarr").exists()


def test_a_long_length_of_short_texts_is_no_fault(tmp_path: Path) -> None:
    model, data = saved(hf.BertModel(hf.BertConfig(**SMALL)), tmp_path / "m"), words(tmp_path / "t.csv", 4)
    trace = traces.record(model, data=data, limit=2, max_length=1024, out=tmp_path / "t.zarr", progress=False)
    assert trace.n_tokens == 12


def test_tuning_keeps_to_the_positions(tmp_path: Path) -> None:
    model = saved(
        hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=97, n_embd=24, n_layer=2, n_head=3, n_positions=32)), tmp_path / "m"
    )
    data = words(tmp_path / "t.csv", 40)
    with pytest.raises(InputError, match=r"has 32 positions.*train.max_length: 32"):
        traces.tune(model, data, "lora", tmp_path / "run", limit=16, progress=False)
    short = words(tmp_path / "s.csv", 28)
    with pytest.raises(InputError, match=r"has 32 positions.*30 tokens and 20 that are decoded or put in front"):
        traces.tune(model, short, "prompt", tmp_path / "prompt", limit=16, progress=False)


def with_pad(folder: Path, pad: str | None) -> None:
    """Give a saved tokenizer another padding token, behind all others, or none; its end is a word."""
    tokenizer = load_tokenizer(str(folder))
    kept = {"tokenizer_object": tokenizer.backend_tokenizer, "unk_token": "[UNK]", "eos_token": "was"}
    made = hf.PreTrainedTokenizerFast(**kept)
    if pad is not None:
        made.add_special_tokens({"pad_token": pad})
    made.save_pretrained(folder)


@pytest.mark.parametrize("new", [0, 2])
def test_padding_without_an_embedding_is_replaced(tmp_path: Path, tiny_data: str, new: int) -> None:
    masks = []
    for name, pad in (("plain", None), ("padded", "[EXTRA]")):
        folder = Path(saved(llama(vocab_size=4 + len(WORDS), pad_token_id=None), tmp_path / name))
        with_pad(folder, pad)
        assert (load_tokenizer(str(folder)).pad_token_id == 4 + len(WORDS)) == (pad is not None)
        out = tmp_path / f"{name}.zarr"
        trace = traces.record(str(folder), data=tiny_data, limit=6, new_tokens=new, out=out, progress=False)
        masks.append(trace.site("layers.0.down").mask().to_bool())
    assert np.array_equal(*masks)


def test_padding_that_the_configuration_names_too(tmp_path: Path, tiny_data: str) -> None:
    size = 4 + len(WORDS)
    folder = Path(saved(llama(vocab_size=size), tmp_path / "m"))
    with_pad(folder, "[EXTRA]")
    config = hf.AutoConfig.from_pretrained(folder)
    for beyond in (size, -1):
        config.pad_token_id = beyond
        config.save_pretrained(folder)
        assert load_model(str(folder), "causal-lm").config.pad_token_id == 4 + WORDS.index("was")
        assert traces.tune(str(folder), tiny_data, "lora", tmp_path / f"run{beyond}", limit=16, progress=False)


def test_a_decoder_s_head_reads_the_last_token_before_the_batch_s_padding(tmp_path: Path) -> None:
    """The tokenizer pads with 0, the configuration says 7: the head must not read a padding token."""
    folder = saved(hf.LlamaForSequenceClassification(llama(pad_token_id=7).config), tmp_path / "m")
    model = load_model(folder)
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 5, 6, 3, 4, 3]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask).logits[0]
        alone = model(input_ids=ids[:1, :4], attention_mask=mask[:1, :4]).logits[0]
    assert torch.allclose(together, alone, atol=1e-6)


def test_which_padding_stands_in() -> None:
    class Tokens:
        pad_token_id: int | None = None
        eos_token_id: int | None = None

    config, tokens = hf.LlamaConfig(**SMALL, pad_token_id=None), Tokens()
    assert vocabulary_size(config) == 97
    assert padding_token(tokens, config) == 0
    tokens.eos_token_id = 9
    assert padding_token(tokens, config) == 9
    tokens.pad_token_id = 97
    assert padding_token(tokens, config) == 9
    config.pad_token_id = 8
    assert padding_token(tokens, config) == 8
    tokens.pad_token_id = 96
    assert padding_token(tokens, config) == 96
    tokens.pad_token_id = 0
    assert padding_token(tokens, config) == 0
    assert vocabulary_size(hf.ViTConfig(**PATCHES)) is None


@pytest.mark.parametrize("tuned", [False, True])
def test_a_real_token_without_an_embedding_is_named(tmp_path: Path, tiny_data: str, tuned: bool) -> None:
    model = saved(llama(vocab_size=4 + len(WORDS) - 1), tmp_path / "m")

    def run() -> object:
        if tuned:
            return traces.tune(model, tiny_data, "lora", tmp_path / "run", progress=False)
        return traces.record(model, data=tiny_data, limit=24, out=tmp_path / "t.zarr", progress=False)

    with pytest.raises(InputError, match=r"embeddings for 17 tokens.*token 17 \('was'\).*resize_token_embeddings"):
        run()
