"""Low-rank products that respect a mask of the weight they are added to."""

from __future__ import annotations

from typing import Any

import torch


class MaskedProduct:
    """Forward hook of a LoRA layer of `peft`: takes the product's entries outside a mask out of the result.

    y = x (W o M)^T + s x (B A)^T - s x ((B A) o (1 - M))^T = x ((W + s B A) o M)^T

    Parameters
    ----------
    mask : bool tensor (N, K)
        Where the weight is kept.
    """

    def __init__(self, mask: torch.Tensor) -> None:
        self.outside = ~mask

    def __call__(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """Return the corrected result."""
        if module.merged:
            return output
        product = module.lora_B["default"].weight @ module.lora_A["default"].weight
        extra = product * self.outside.to(product.device) * module.scaling["default"]
        return output - torch.nn.functional.linear(inputs[0], extra)
