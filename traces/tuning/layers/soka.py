"""A linear layer whose leading Kronecker terms are trained."""

from __future__ import annotations

import torch

from .lowrank import LowRank, Wrapped, as_kept, matrix


class KroneckerTerm(torch.nn.Module):
    """y = (U (x) V) x as two small matrix products: Y = U X V^T.

    Parameters
    ----------
    u : tensor (m, n)
    v : tensor (p, q)
    """

    def __init__(self, u: torch.Tensor, v: torch.Tensor) -> None:
        super().__init__()
        self.kron_V = torch.nn.Linear(v.shape[1], v.shape[0], bias=False)
        self.kron_U = torch.nn.Linear(u.shape[1], u.shape[0], bias=False)
        with torch.no_grad():
            self.kron_V.weight.copy_(v)
            self.kron_U.weight.copy_(u)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (M, n q) to (M p, m): row i p + j holds the outputs j, p + j, 2 p + j, ... of token i."""
        n, q = self.kron_U.in_features, self.kron_V.in_features
        inner = self.kron_V(x.reshape(-1, q)).view(-1, n, self.kron_V.out_features)
        y: torch.Tensor = self.kron_U(inner.transpose(1, 2).reshape(-1, n))
        return y


class KroneckerSum(torch.nn.ModuleList):
    """Some Kronecker terms, and the matrix that they sum to."""

    def forward(self) -> torch.Tensor:
        """Return sum_k U_k (x) V_k, (m p, n q)."""
        u = torch.stack([term.kron_U.weight for term in self])
        v = torch.stack([term.kron_V.weight for term in self])
        (_, m, n), (_, p, q) = u.shape, v.shape
        product = u.flatten(1).T @ v.flatten(1)  # the rearranged matrix
        return product.view(m, n, p, q).transpose(1, 2).reshape(m * p, n * q)


class KroneckerLinear(Wrapped):
    """W_res x + sum_k (U_k (x) V_k) x, with the residual frozen.

    Parameters
    ----------
    base_layer : torch.nn.Module
        The linear layer; the terms' first values are taken out of its weight.
    u : tensor (r, m, n)
        The terms' first values,
    v : tensor (r, p, q)
        each with the square root of the singular value in it.
    low_rank : LowRank, optional
        A low-rank pair beside the terms.
    """

    def __init__(
        self, base_layer: torch.nn.Module, u: torch.Tensor, v: torch.Tensor, low_rank: LowRank | None = None
    ) -> None:
        super().__init__(base_layer)
        self.kronecker = KroneckerSum(KroneckerTerm(left, right) for left, right in zip(u, v, strict=True))
        self.low_rank = low_rank
        matrix(base_layer).sub_(self.kronecker().detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to (..., inputs)."""
        y: torch.Tensor
        if self.training:
            # one product of the layer's own size is faster in training than many small ones and their transposes
            weight = as_kept(self.base_layer, matrix(self.base_layer) + self.kronecker())
            y = torch.func.functional_call(self.base_layer, {"weight": weight}, (x,))
        else:
            y = self.base_layer(x)
            rows = x.reshape(-1, x.shape[-1])
            total = torch.stack([term(rows) for term in self.kronecker]).sum(0)
            y = y + total.view(len(rows), -1, total.shape[-1]).transpose(1, 2).reshape(y.shape)
        return y if self.low_rank is None else y + self.low_rank(x)

    def unwrap(self) -> torch.nn.Module:
        """Return the base layer with the terms folded into its weight."""
        weight = matrix(self.base_layer)
        weight.add_(self.kronecker().detach())
        if self.low_rank is not None:
            weight.add_(self.low_rank.delta().detach())
        return self.base_layer
