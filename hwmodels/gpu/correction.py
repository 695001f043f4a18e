"""Smooth correction of the closed-form GEMM time, learned on the calibration shapes.

Libraries pick kernels by tables nobody publishes, so the closed form errs by the same few per cent on neighbouring
shapes. A Gaussian process on the log residual takes that part up:

    t = t_form exp( sum_a w_a (1 + |x - x_a|^2 / 4)^-2 )

with ``x`` the shape's features divided by their length scales and one anchor ``x_a`` for each calibration shape;
far from every anchor it goes to 1. Length scales, amplitude and noise maximise the marginal likelihood
(Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, ch. 5), so no scored row is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ..counting.jit import jit
from .timing import Floats, Ints, check_shapes, in_chunks

FEATURES = ("log2 m", "log2 n", "log2 k", "log2 waves", "share of the last wave")
TILE_ROWS, TILE_COLUMNS = 128, 256  # the tile whose waves the features count
PRIOR_SCALE, PRIOR_WIDTH = np.log(1.5), 1.5
START = np.array([0.5] * len(FEATURES) + [np.log(0.08), np.log(0.05)])


@jit
def _features(mnk, sms, out):  # type: ignore[no-untyped-def]
    for i in range(mnk.shape[0]):
        m, n, k = mnk[i, 0], mnk[i, 1], mnk[i, 2]
        waves = -(-m // TILE_ROWS) * -(-n // TILE_COLUMNS) / sms
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = np.log2(m), np.log2(n), np.log2(k), np.log2(waves)
        out[i, 4] = waves - np.floor(waves) if waves > 0.3 else 0.0


# fastmath lets the sum over anchors use vector registers, the order of a sum being all it may change; numpy's errors
# spare each division the branch for a zero, which near >= 1 never is
@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sum_anchors(points, a0, a1, a2, a3, a4, weights, out):  # type: ignore[no-untyped-def]
    for i in range(points.shape[0]):
        a, b, c, d, e = points[i, 0], points[i, 1], points[i, 2], points[i, 3], points[i, 4]
        total = 0.0
        for j in range(weights.shape[0]):
            da, db, dc, dd, de = a0[j] - a, a1[j] - b, a2[j] - c, a3[j] - d, a4[j] - e
            near = 1.0 + 0.25 * (da * da + db * db + dc * dc + dd * dd + de * de)
            total += weights[j] / (near * near)
        out[i] = total


def features(mnk: Ints, sms: int) -> Floats:
    """`FEATURES` of each shape, ``float64[ops, 5]``."""
    out = np.empty((len(mnk), len(FEATURES)))
    _features(mnk, sms, out)
    return out


@dataclass(frozen=True, eq=False)
class Correction:
    """A fitted correction.

    Parameters
    ----------
    sms : int
        SMs of the device it was fitted on.
    scales : float64[5]
        Length scales of `FEATURES`.
    anchors : int64[anchors, 3]
        Calibration shapes.
    weights : float64[anchors]
        w_a.
    """

    sms: int
    scales: Floats
    anchors: Ints
    weights: Floats

    def log_factor(self, mnk: object) -> Floats:
        """Log of the factor on the closed form's time, ``float64[ops]``."""
        shapes = check_shapes(mnk)
        out = np.empty(len(shapes))
        places = np.ascontiguousarray((features(self.anchors, self.sms) / self.scales).T)
        points = features(shapes, self.sms) / self.scales

        def run(part: slice) -> None:
            _sum_anchors(points[part], *places, self.weights, out[part])

        in_chunks(run, len(shapes))
        return out


def _covariance(x: Floats, scales: Floats) -> tuple[Floats, NDArray[np.float64]]:
    gaps = ((x[:, None, :] - x[None, :, :]) / scales) ** 2
    return 1.0 + 0.25 * gaps.sum(axis=-1), gaps


def _negative_evidence(z: Floats, x: Floats, residual: Floats) -> tuple[float, Floats]:
    from scipy.linalg import cho_factor, cho_solve

    count, dims = x.shape
    scales, amplitude, noise = np.exp(z[:dims]), float(np.exp(2 * z[dims])), float(np.exp(2 * z[dims + 1]))
    near, gaps = _covariance(x, scales)
    kernel = amplitude / near**2
    factor = cho_factor(kernel + (noise + 1e-10) * np.eye(count), lower=True)
    alpha = cho_solve(factor, residual)
    inverse = cho_solve(factor, np.eye(count))
    slope = 0.5 * (inverse - np.outer(alpha, alpha))  # d(value) / d(covariance)
    gradient = np.empty_like(z)
    common = slope * (amplitude / near**3)
    for d in range(dims):
        gradient[d] = float((common * gaps[:, :, d]).sum())
    gradient[dims] = 2 * float((slope * kernel).sum())
    gradient[dims + 1] = 2 * noise * float(np.trace(slope))
    pull = (z[:dims] - PRIOR_SCALE) / PRIOR_WIDTH
    value = 0.5 * float(residual @ alpha) + float(np.log(np.diag(factor[0])).sum()) + 0.5 * float(pull @ pull)
    gradient[:dims] += pull / PRIOR_WIDTH
    return value, gradient


def fit_correction(mnk: object, log_residual: Floats, sms: int) -> Correction:
    """Fit a correction to what the closed form leaves on the calibration shapes.

    Parameters
    ----------
    mnk : int[rows, 3]
        Calibration shapes.
    log_residual : float64[rows]
        ``log(measured / form)``.
    sms : int
        SMs of the device.

    Returns
    -------
    Correction
        One anchor for each row.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    shapes = check_shapes(mnk)
    x = features(shapes, sms)
    found = minimize(
        _negative_evidence,
        START,
        args=(x, log_residual),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-4.0, 4.0)] * len(START),
        options={"maxiter": 40},
    )
    dims = len(FEATURES)
    scales = np.exp(found.x[:dims])
    amplitude, noise = np.exp(2 * found.x[dims:])
    near, _ = _covariance(x, scales)
    kernel = amplitude / near**2
    alpha = cho_solve(cho_factor(kernel + (noise + 1e-10) * np.eye(len(x)), lower=True), log_residual)
    return Correction(sms, scales, shapes, np.asarray(amplitude * alpha))
