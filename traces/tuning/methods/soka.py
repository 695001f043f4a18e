"""SoKA: the leading Kronecker terms of each weight are trained, the rest of it is frozen (arXiv 2506.15251)."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...errors import InputError
from ...models.sites import weight_shape
from ..change import Change, Decided, Method, Part, Sample
from .lora import Targets, linear_targets

if TYPE_CHECKING:
    import torch

    from ..layers.lowrank import LowRank


class Soka(Part):
    """SVD and Kronecker adaptation of linear layers.

    Parameters
    ----------
    rank : int, optional
        Kronecker terms of every matrix; chosen for each matrix where not given:
    energy : float
        as many as hold this share of the rearranged matrix's squared singular values, or
    r_max : int
        as many as stand before the elbow of the singular values, whichever is less, but 1 to `r_max`.
    lora_r : int, optional
        A low-rank pair of this rank is trained beside the Kronecker terms,
    lora_alpha : float
        scaled by ``lora_alpha / lora_r``.
    targets : "all-linear" or names
        Last parts of module names, or whole names.
    """

    type: Literal["soka"] = "soka"
    rank: int | None = Field(default=None, ge=1)
    energy: float = Field(default=0.9, gt=0, le=1)
    r_max: int = Field(default=6, ge=1)
    lora_r: int | None = Field(default=None, ge=1)
    lora_alpha: float = Field(default=16.0, gt=0)
    targets: Targets = "all-linear"

    def change(self) -> Change:
        """Return the wrapping."""
        return _Soka(self)


METHOD = Method(
    name="soka",
    title="SoKA: the leading Kronecker terms of each weight are trained, the rest of it is frozen",
    equation=(
        "R = W.reshape(m,p,n,q).transpose(0,2,1,3).reshape(mn, pq) = sum_k S_k u_k v_k^T;  "
        "W = W_res + sum_{k<=r} U_k (x) V_k;  y = W_res x + sum_k U_k X V_k^T, X = x.reshape(n, q);  "
        "r = min(r_energy, r_elbow) within 1..r_max"
    ),
    source="SoKA, arXiv 2506.15251",
    evidence="reconstructed",
    notes=(
        "The rearrangement and the two rank criteria are the paper's; the thresholds and the start, taken from PiSSA "
        "(arXiv 2404.02948), are ours. Merged before recording by default, so it adds no operation at inference."
    ),
    module=Soka,
)


def factor_pair(size: int) -> tuple[int, int]:
    """Split a dimension into its two most equal factors, the smaller first: 128 into 8 and 16."""
    small = next(d for d in range(isqrt(size), 0, -1) if size % d == 0)
    return small, size // small


def rearrange(weight: torch.Tensor, left: tuple[int, int], right: tuple[int, int]) -> torch.Tensor:
    """Return Van Loan's rearrangement R, in which a Kronecker product has rank one.

    Parameters
    ----------
    weight : tensor (m p, n q)
        The matrix.
    left, right : (m, n), (p, q)
        Shapes of the two factors.

    Returns
    -------
    tensor (m n, p q)
        ``||W - sum_k U_k (x) V_k||_F = ||R - sum_k vec(U_k) vec(V_k)^T||_F``
    """
    (m, n), (p, q) = left, right
    return weight.reshape(m, p, n, q).transpose(1, 2).reshape(m * n, p * q)


def kronecker_svd(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Write a matrix as a sum of Kronecker products, largest first: W = sum_k S_k U_k (x) V_k.

    Parameters
    ----------
    weight : tensor (N, K)
        The matrix.

    Returns
    -------
    u : tensor (r, m, n)
        Each of norm 1; m p = N and n q = K, split as `factor_pair` does.
    s : tensor (r,)
        ``||W - W_r||_F^2 = sum_{k > r} S_k^2``.
    v : tensor (r, p, q)
    """
    import torch as th

    (m, p), (n, q) = factor_pair(weight.shape[0]), factor_pair(weight.shape[1])
    u, s, vt = th.linalg.svd(rearrange(weight, (m, n), (p, q)), full_matrices=False)
    return u.T.reshape(-1, m, n), s, vt.reshape(-1, p, q)


def rank_by_energy(s: torch.Tensor, share: float) -> int:
    """Return the least rank whose squared singular values sum to at least `share` of all of them."""
    kept = (s.double() ** 2).cumsum(0)
    return int((kept < share * kept[-1]).sum()) + 1


def rank_by_elbow(s: torch.Tensor) -> int:
    """Return how many singular values stand before the point of their curve farthest from its chord; at least 1.

    Parameters
    ----------
    s : tensor (r,)
        Descending. The chord joins (0, S_0) and (r-1, S_{r-1}); the vertical distance is proportional to the
        perpendicular one, so its maximum is at the same point.
    """
    import torch as th

    values = s.double()
    chord = values[0] + (values[-1] - values[0]) * th.arange(len(values)) / max(1, len(values) - 1)
    return max(1, int((chord - values).argmax()))


class _Soka(Change):
    """Wraps the targets; the terms' first values are kept, so that the frozen residual is the same on every machine."""

    def __init__(self, part: Soka) -> None:
        self.part = part
        self._facts: dict[str, Any] = {}

    def decide(self, net: Any, sample: Sample) -> dict[str, torch.Tensor]:
        """Choose each matrix's rank and first values.

        Raises
        ------
        InputError
            If a matrix's sides have no two factors: a single term would be as large as the matrix.
        """
        import torch as th

        from ..layers.lowrank import matrix

        found: dict[str, torch.Tensor] = {}
        for name in linear_targets(net, self.part.targets):
            module = net.get_submodule(name)
            weight = matrix(module)
            if not weight.is_floating_point():
                raise InputError(f"module 'soka': {name} has a quantised weight; tune the unquantised model")
            rows, columns = weight.shape
            if 1 in (factor_pair(rows)[0], factor_pair(columns)[0]):
                raise InputError(
                    f"module 'soka': {name} is {rows} x {columns}, and a side with no factors cannot be split; "
                    "leave it out of module.targets"
                )
            u, s, v = kronecker_svd(weight)
            criteria = rank_by_energy(s, self.part.energy), rank_by_elbow(s)
            rank = min(self.part.rank or max(1, min(*criteria, self.part.r_max)), len(s))
            root = s[:rank].sqrt()[:, None, None]
            found[f"u.{name}"] = (u[:rank] * root).contiguous()
            found[f"v.{name}"] = (v[:rank] * root).contiguous()
            found[f"rank.{name}"] = th.tensor([rank, *criteria])
            squares = s.double() ** 2
            found[f"energy.{name}"] = squares[:rank].sum() / squares.sum()
        return found

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Take the leading terms out of each target's weight and put them beside it."""
        from ..layers.soka import KroneckerLinear

        facts: dict[str, Any] = {}
        for name in linear_targets(net, self.part.targets):
            base = net.get_submodule(name)
            u, v = decided[f"u.{name}"], decided[f"v.{name}"]
            net.set_submodule(name, KroneckerLinear(base, u, v, self._low_rank(base)))
            rank, by_energy, by_elbow = decided[f"rank.{name}"].tolist()
            facts[name] = {
                "rank": rank,
                "rank_by_energy": by_energy,
                "rank_by_elbow": by_elbow,
                "energy": float(decided[f"energy.{name}"]),
                "left": list(u.shape[1:]),
                "right": list(v.shape[1:]),
            }
        self._facts = facts
        return net

    def _low_rank(self, base: Any) -> LowRank | None:
        from ..layers.lowrank import LowRank

        shape = weight_shape(base)
        assert shape is not None
        return None if self.part.lora_r is None else LowRank(*shape, self.part.lora_r, self.part.lora_alpha)

    def merge(self, net: Any) -> Any:
        """Fold every term into its weight."""
        from ..layers.lowrank import unwrap

        return unwrap(net)

    def facts(self, net: Any) -> dict[str, Any]:
        """Return rank, what either criterion asked for, energy and factor shapes of each matrix."""
        return {"kronecker": self._facts}
