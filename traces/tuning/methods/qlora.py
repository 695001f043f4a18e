"""QLoRA: LoRA on a base model whose weights are held in 4-bit NormalFloat (Dettmers et al., arXiv 2305.14314)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from ...errors import InputError
from ..change import Change, Decided, Method
from .lora import LoRA, PeftChange, linear_targets


class QLoRA(LoRA):
    """Low-rank adaptation of linear layers held in 4 bits, through `peft` and `bitsandbytes`; needs CUDA.

    Parameters
    ----------
    quant : {"nf4", "fp4"}
        The 4-bit code: NormalFloat, whose levels are a normal distribution's quantiles, or plain float.
    double : bool
        Quantise the blocks' scales too.
    """

    type: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    quant: Literal["nf4", "fp4"] = "nf4"
    double: bool = True

    def change(self) -> Change:
        """Return the quantisation and wrapping."""
        return _QLoRA(self)


METHOD = Method(
    name="qlora",
    title="LoRA on weights held in 4-bit NormalFloat, through the peft and bitsandbytes libraries",
    equation="y = x deq(NF4(W)) + (alpha / r) x A B;  W in blocks of 64 with one scale each, itself in 8 bits",
    source="Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, arXiv 2305.14314",
    evidence="paper",
    notes=(
        "Runs where CUDA and bitsandbytes are. Merged, it is the dequantised weights plus the adapters, in floating "
        "point: rounding the sum to 4 bits again would change the outputs that were measured."
    ),
    module=QLoRA,
)


def four_bit_device() -> str:
    """Return the device that 4-bit weights are on.

    Raises
    ------
    InputError
        If CUDA or bitsandbytes is missing.
    """
    import torch

    missing = [] if torch.cuda.is_available() else ["a CUDA GPU"]
    missing += [] if find_spec("bitsandbytes") else ["the bitsandbytes package (pip install bitsandbytes)"]
    if missing:
        raise InputError(f"module 'qlora' needs {' and '.join(missing)}, not found here; use lora")
    return "cuda"


class _QLoRA(PeftChange):
    """Quantises the targets' weights, then wraps them."""

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Hold the targets in 4 bits and wrap them; the task head stays trainable, and in full precision.

        Raises
        ------
        InputError
            If CUDA or bitsandbytes is missing.
        """
        device = four_bit_device()
        import torch

        whole = set(getattr(net, "_keep_in_fp32_modules", None) or ())  # T5 casts its input to the type of ``wo``
        for name in linear_targets(net, self.part.targets):
            linear = net.get_submodule(name)
            if isinstance(linear, torch.nn.Linear) and not whole & set(name.split(".")):
                net.set_submodule(name, self._quantised(linear, device))
        net.is_loaded_in_4bit = True  # what peft asks for
        return super().apply(net.to(device), task, decided)

    def _quantised(self, linear: Any, device: str) -> Any:
        import torch

        bnb = import_module("bitsandbytes")
        layer = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=torch.float32,
            compress_statistics=self.part.double,
            quant_type=self.part.quant,
            device="meta",
        )
        layer.weight = bnb.nn.Params4bit(
            linear.weight.detach(),
            requires_grad=False,
            compress_statistics=self.part.double,
            quant_type=self.part.quant,
            module=layer,
        )
        layer.bias = linear.bias
        return layer.to(device)

    def merge(self, net: Any) -> Any:
        """Return the model in floating point: dequantised weights plus the adapters, on the CPU."""
        import torch

        functional = import_module("bitsandbytes.functional")
        plain: dict[str, Any] = {}
        for name, module in net.base_model.model.named_modules():
            weight: Any = getattr(getattr(module, "base_layer", None), "weight", None)
            if hasattr(weight, "quant_state"):
                full = functional.dequantize_4bit(weight.data, weight.quant_state).float()
                full += module.get_delta_weight("default")
                plain[name] = torch.nn.Linear(*full.shape[::-1], bias=module.base_layer.bias is not None)
                plain[name].weight.data = full
                plain[name].bias = module.base_layer.bias
        for name, linear in plain.items():
            net.base_model.model.set_submodule(name, linear)
        return net.merge_and_unload(safe_merge=True).requires_grad_(False).cpu()
