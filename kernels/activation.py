"""Activations within kernels, in float32, chosen by name at compile time.

    relu       max(x, 0)
    gelu       x * P(x),  P the distribution function of a normal     arXiv:1606.08415
    gelu_tanh  x * (1 + tanh(u)) / 2,  u = sqrt(2 / pi) * (x + 0.044715 x^3)
    silu       x / (1 + exp(-x))                                      arXiv:1702.03118

(1 + tanh(u)) / 2 is the logistic function of 2 u, so gelu_tanh and silu need only that one. P is
computed by formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions, whose error
is below 1e-7: Triton's own erf takes so many registers that a product's tile loses a neighbour.
"""

from __future__ import annotations

import triton
import triton.language as tl

NAMES = ("none", "relu", "gelu", "gelu_tanh", "silu")

# The coefficients of formula 7.1.26, for x / sqrt(2) and half of the result.
_P: tl.constexpr = tl.constexpr(0.3275911 * 0.7071067811865476)
_A1: tl.constexpr = tl.constexpr(0.254829592 / 2)
_A2: tl.constexpr = tl.constexpr(-0.284496736 / 2)
_A3: tl.constexpr = tl.constexpr(1.421413741 / 2)
_A4: tl.constexpr = tl.constexpr(-1.453152027 / 2)
_A5: tl.constexpr = tl.constexpr(1.061405429 / 2)
# 2 * sqrt(2 / pi), and that times 0.044715.
_TANH_LINEAR: tl.constexpr = tl.constexpr(1.5957691216057308)
_TANH_CUBIC: tl.constexpr = tl.constexpr(0.07135481282551923)


def check(name: str) -> None:
    """Refuse an activation that kernels do not have.

    Raises:
        ValueError: it is none of ``NAMES``.
    """
    if name not in NAMES:
        raise ValueError(f"kernels have no activation '{name}'; they have {', '.join(NAMES)}")


@triton.jit
def logistic(x):
    """1 / (1 + exp(-x)); the exponential of -|x| cannot overflow."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@triton.jit
def normal(x):
    """The distribution function of a normal variable: (1 + erf(x / sqrt(2))) / 2."""
    t = 1.0 / (1.0 + _P * tl.abs(x))
    tail = ((((_A5 * t + _A4) * t + _A3) * t + _A2) * t + _A1) * t * tl.exp(-0.5 * x * x)
    return tl.where(x >= 0, 1.0 - tail, tail)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """The activation called NAME of float32 values."""
    if NAME == "relu":
        # A comparison with NaN is false: it stays NaN, as in torch.
        x = tl.where(x < 0, 0.0, x)
    elif NAME == "gelu":
        x = x * normal(x)
    elif NAME == "gelu_tanh":
        x = x * logistic(x * (_TANH_LINEAR + _TANH_CUBIC * x * x))
    elif NAME == "silu":
        x = x * logistic(x)
    return x
