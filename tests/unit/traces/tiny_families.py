"""One tiny randomly initialised member of each model family, with inputs of any shape. Never call their traces real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 64,
}
PATCHES: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 12,
    "patch_size": 4,
}
ENCODERS = ("bert", "roberta", "distilbert", "albert", "modernbert", "electra", "esm")
DECODERS = ("opt", "gpt2", "llama", "qwen2", "qwen3", "mistral", "gemma")
PAIRS = ("t5", "t5-gated", "bart", "whisper")
VISION = ("vit", "deit", "dinov2", "dinov2-registers")
FAMILIES = (*ENCODERS, *DECODERS, *PAIRS, *VISION)


def _small(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (SMALL | changes).items() if v is not None}


def _t5(gated: bool) -> Any:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=97,
            d_model=24,
            d_kv=8,
            d_ff=40,
            num_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu" if gated else "relu",
            decoder_start_token_id=0,
        )
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**SMALL)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**SMALL)),
    "electra": lambda: hf.ElectraForSequenceClassification(hf.ElectraConfig(**_small(embedding_size=16))),
    "esm": lambda: hf.EsmForSequenceClassification(
        hf.EsmConfig(**_small(pad_token_id=1, mask_token_id=2, position_embedding_type="rotary"))
    ),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(vocab_size=97, dim=24, hidden_dim=40, n_layers=2, n_heads=3)
    ),
    "albert": lambda: hf.AlbertForSequenceClassification(hf.AlbertConfig(**_small(embedding_size=16))),
    "modernbert": lambda: hf.ModernBertForSequenceClassification(
        hf.ModernBertConfig(**_small(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2))
    ),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(**_small(intermediate_size=None, ffn_dim=40, word_embed_proj_dim=24))
    ),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=97, n_embd=24, n_layer=2, n_head=3, n_positions=64)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_small(num_key_value_heads=1))),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_small(num_key_value_heads=1))),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_small(num_key_value_heads=1, head_dim=8))),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_small(num_key_value_heads=1))),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**_small(num_key_value_heads=1, head_dim=8))),
    "t5": lambda: _t5(False),
    "t5-gated": lambda: _t5(True),
    "whisper": lambda: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(
            vocab_size=97,
            d_model=24,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=3,
            decoder_attention_heads=3,
            encoder_ffn_dim=40,
            decoder_ffn_dim=40,
            num_mel_bins=8,
            max_source_positions=10,
            max_target_positions=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    ),
    "bart": lambda: hf.BartForConditionalGeneration(
        hf.BartConfig(
            vocab_size=97,
            d_model=24,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=3,
            decoder_attention_heads=3,
            encoder_ffn_dim=40,
            decoder_ffn_dim=40,
            max_position_embeddings=64,
            decoder_start_token_id=2,
        )
    ),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(intermediate_size=40, **PATCHES)),
    "deit": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(intermediate_size=40, **PATCHES)),
    "dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(mlp_ratio=2, **PATCHES)),
    "dinov2-registers": lambda: hf.Dinov2WithRegistersForImageClassification(
        hf.Dinov2WithRegistersConfig(mlp_ratio=2, **PATCHES)
    ),
}


def build(family: str, attention: str = "eager") -> Any:
    """Build a model; eager attention, because torch's FLOP counter does not see the CPU's fused kernel."""
    torch.manual_seed(0)
    model = BUILDERS[family]()
    model.set_attn_implementation(attention)
    return model.eval()


def inputs(family: str, batch: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return unpadded inputs; `length` counts the tokens that vary (vision models have none)."""
    made = torch.Generator().manual_seed(seed)
    if family in VISION:
        return {"pixel_values": torch.randn((batch, 3, 12, 12), generator=made)}
    ids = torch.randint(3, 97, (batch, length), generator=made)
    if family == "whisper":
        return {"input_features": torch.randn((batch, 8, 20), generator=made), "decoder_input_ids": ids}
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family in PAIRS:
        given["decoder_input_ids"] = ids
    return given
