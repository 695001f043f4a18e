"""Patch grid of vision transformers: how an image is cut into tokens."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PatchGrid:
    """What a vision model's configuration says of its input.

    Parameters
    ----------
    patch : int
        Side of a patch in pixels.
    side : int
        Patches along a side of the images that the model was trained on.
    special : int
        Tokens beside the patches: class, distillation, registers.
    any_size : bool
        Whether other sizes work: the position embedding is then interpolated.
    extra : dict
        What the forward pass must be told for that.
    """

    patch: int
    side: int
    special: int
    any_size: bool
    extra: dict[str, Any]

    @classmethod
    def of(cls, config: Any) -> PatchGrid:
        """Read a transformers configuration."""
        import transformers

        patch, image = (int(v if isinstance(v, int) else v[0]) for v in (config.patch_size, config.image_size))
        special = (2 if config.model_type == "deit" else 1) + int(getattr(config, "num_register_tokens", 0) or 0)
        known = transformers.MODEL_MAPPING.get(type(config), None)
        flag = known is not None and "interpolate_pos_encoding" in inspect.signature(known.forward).parameters
        any_size = flag or config.model_type.startswith("dinov2")
        return cls(patch, image // patch, special, any_size, {"interpolate_pos_encoding": True} if flag else {})

    def within(self, tokens: int) -> int:
        """Return the patches along a side of the largest image with no more tokens than that, 0 if there is none."""
        fitting = int(max(0, tokens - self.special) ** 0.5)
        return min(self.side, fitting) if self.any_size else self.side

    def arguments(self, side: int) -> dict[str, Any]:
        """Return what the forward pass must be told of images with `side` patches along a side."""
        return {} if side == self.side else self.extra
