"""IA3: trained vectors that scale keys, values and the MLP's inner activations (Liu et al., arXiv 2205.05638)."""

from __future__ import annotations

from typing import Any, Literal

from ...errors import InputError
from ...models.experts import dense_sites
from ..change import Change, Method, Part
from .lora import PeftChange, heads, linear_targets, peft_task


class IA3(Part):
    """Scaling vectors on keys, values and the input of each down-projection, through the `peft` library."""

    type: Literal["ia3"] = "ia3"

    def change(self) -> Change:
        """Return the wrapping."""
        return _IA3(self)


METHOD = Method(
    name="ia3",
    title="IA3: scaling vectors on keys, values and the MLP's inner activations, through the peft library",
    equation="k = l_k * (x W_k);  v = l_v * (x W_v);  y = (l_ff * f(x W_1)) W_2;  all l = 1 at the start, W frozen",
    source="Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper, arXiv 2205.05638",
    evidence="paper",
    notes=(
        "Folded into the weights it adds no operation at inference. Where query, key and value are one projection, "
        "its whole output is scaled, as peft does."
    ),
    module=IA3,
)


class _IA3(PeftChange):
    """Wraps keys, values and down-projections."""

    def config(self, net: Any, task: str) -> Any:
        """Return the `peft` configuration.

        Raises
        ------
        InputError
            If the model's keys and values are not linear layers of a known name.
        """
        import peft

        from ...oplist.probe import projection

        sites = {site.module for site in dense_sites(net)}
        names = {name: projection(name) for name in linear_targets(net, "all-linear")}
        attention = [n for n, kind in names.items() if kind in ("k", "v")]
        attention = attention or [n for n, kind in names.items() if kind == "qkv"]
        if not attention:
            raise InputError(
                f"module 'ia3' found no key and value projections in this '{net.config.model_type}' model; use lora"
            )
        return peft.IA3Config(
            task_type=peft_task(net, task),
            target_modules=sorted({*attention, *sites}),
            feedforward_modules=sorted(sites),
            modules_to_save=heads(net) or None,
        )
