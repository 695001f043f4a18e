"""Virtual tokens in front of the text, or keys and values in front of each layer's, with the model frozen."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ...errors import InputError
from ...models.load import modality
from ..change import Change, Decided, Method, Part
from .lora import PeftChange, peft_task

DRY_TOKENS = 4  # of the pass that shows whether a model takes virtual tokens


class PromptTuning(Part):
    """Trained embeddings in front of the text (Lester et al., arXiv 2104.08691), through the `peft` library.

    Parameters
    ----------
    virtual_tokens : int
        How many; 60 is what the released code of DEFT takes.
    """

    type: Literal["prompt"] = "prompt"
    virtual_tokens: int = Field(default=60, ge=1)

    def change(self) -> Change:
        """Return the wrapping."""
        return _Prompt(self)


class PrefixTuning(Part):
    """Trained keys and values in front of each layer's own (Li and Liang, arXiv 2101.00190), through `peft`.

    Parameters
    ----------
    virtual_tokens : int
        How many; 60 is what the released code of DEFT takes.
    projection : bool
        Train a two-layer MLP that makes the prefix, as the paper does, not the prefix itself; it is gone at inference.
    """

    type: Literal["prefix"] = "prefix"
    virtual_tokens: int = Field(default=60, ge=1)
    projection: bool = False

    def change(self) -> Change:
        """Return the wrapping."""
        return _Prefix(self)


class PTuning(Part):
    """Trained embeddings in front of the text, made by an MLP or LSTM (Liu et al., arXiv 2103.10385), through `peft`.

    Parameters
    ----------
    virtual_tokens : int
        How many.
    encoder : {"mlp", "lstm"}
        What makes the embeddings while training; it is gone at inference.
    hidden : int, optional
        The encoder's inner width; by default that of the embeddings.
    """

    type: Literal["ptuning"] = "ptuning"
    virtual_tokens: int = Field(default=20, ge=1)
    encoder: Literal["mlp", "lstm"] = "mlp"
    hidden: int | None = Field(default=None, ge=1)

    def change(self) -> Change:
        """Return the wrapping."""
        return _PTuning(self)


class _Virtual(PeftChange):
    """Puts something in front of the tokens; `config` says what."""

    name: str

    def shape(self, net: Any, task: str) -> dict[str, Any]:
        """Return what every `peft` configuration here needs: `peft` knows only some families' names for it."""
        config = net.config
        if modality(config) != "text":
            raise InputError(
                f"module '{self.name}' puts virtual tokens before text, this '{config.model_type}' model takes "
                f"{modality(config)}; use lora, ia3 or adapter"
            )
        layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
        return {
            "task_type": peft_task(net, task),
            "num_virtual_tokens": self.part.virtual_tokens,
            "num_layers": layers,
            "num_attention_heads": config.num_attention_heads,
            "token_dim": net.get_input_embeddings().weight.shape[1],
            "num_transformer_submodules": 1,
        }

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Wrap, and run a few tokens: some families take neither embeddings nor a cache.

        Raises
        ------
        InputError
            If the model cannot run with virtual tokens.
        """
        import torch

        kind, room = net.config.model_type, getattr(net.config, "max_position_embeddings", None)
        if room is not None and self.part.virtual_tokens + DRY_TOKENS > room:
            raise InputError(
                f"module '{self.name}': {self.part.virtual_tokens} virtual tokens leave no room in the {room} "
                "positions of this model; lower module.virtual_tokens"
            )
        device = net.device
        try:
            net = super().apply(net, task, decided)
            ids = torch.ones((2, DRY_TOKENS), dtype=torch.long, device=device)
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if net.config.is_encoder_decoder:
                given["decoder_input_ids"] = ids
            with torch.no_grad():
                net(**given)
        except (ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"module '{self.name}' does not fit this '{kind}' model ({first}); use lora, ia3 or adapter"
            ) from error
        return net

    def merge(self, net: Any) -> Any:
        """Keep what the encoder makes in place of the encoder; the virtual tokens themselves cannot be folded away."""
        import torch

        encoder = net.prompt_encoder["default"]
        made = net.get_prompt_embedding_to_save("default").to(encoder.embedding.weight.device)
        encoder.embedding = torch.nn.Embedding.from_pretrained(made)
        for trained in ("transform", "mlp_head", "lstm_head"):
            if hasattr(encoder, trained):
                delattr(encoder, trained)
        net.active_peft_config.inference_mode = True
        return net


class _Prompt(_Virtual):
    name = "prompt"

    def config(self, net: Any, task: str) -> Any:
        """Return the `peft` configuration."""
        import peft

        return peft.PromptTuningConfig(**self.shape(net, task))


class _Prefix(_Virtual):
    name = "prefix"

    def config(self, net: Any, task: str) -> Any:
        """Return the `peft` configuration."""
        import peft

        shape, config = self.shape(net, task), net.config
        own = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
        shape["token_dim"] = shape["num_attention_heads"] * (own or config.hidden_size // config.num_attention_heads)
        if config.is_encoder_decoder:
            shape["num_transformer_submodules"] = 2  # the cache of the decoder's cross-attention exists, and is empty
        return peft.PrefixTuningConfig(prefix_projection=self.part.projection, **shape)


class _PTuning(_Virtual):
    name = "ptuning"

    def config(self, net: Any, task: str) -> Any:
        """Return the `peft` configuration."""
        import peft

        kind = self.part.encoder.upper()
        return peft.PromptEncoderConfig(
            encoder_reparameterization_type=kind, encoder_hidden_size=self.part.hidden, **self.shape(net, task)
        )


METHODS = (
    Method(
        name="prompt",
        title="Prompt tuning: trained embeddings in front of the text, through the peft library",
        equation="input = [P; E(x)],  P: (virtual tokens, d) trained, all else frozen",
        source="Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, arXiv 2104.08691",
        evidence="paper",
        notes="Every layer runs the virtual tokens too: each sequence is that much longer in the trace.",
        module=PromptTuning,
    ),
    Method(
        name="prefix",
        title="Prefix tuning: trained keys and values in front of each layer's own, through the peft library",
        equation="attention(q, [P_k; k], [P_v; v]) in each layer,  P: (layers, 2, virtual tokens, d) trained",
        source="Li and Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, arXiv 2101.00190",
        evidence="paper",
        notes=(
            "Adds keys to attention and no tokens to the layers. In an encoder-decoder, peft puts it into the "
            "decoder's self-attention alone."
        ),
        module=PrefixTuning,
    ),
    Method(
        name="ptuning",
        title="P-tuning: embeddings in front of the text, made by a small network, through the peft library",
        equation="input = [P; E(x)],  P = MLP(e) or MLP(LSTM(e)),  e: (virtual tokens, d);  MLP, LSTM and e trained",
        source="Liu et al., GPT Understands, Too, arXiv 2103.10385",
        evidence="paper",
        notes="Every layer runs the virtual tokens too; the network that makes them is gone at inference.",
        module=PTuning,
    ),
)
