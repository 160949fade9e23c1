"""Activations within kernels, in float32, chosen by name at compile time.

    relu       max(x, 0)
    gelu       x * (1 + erf(x / sqrt(2))) / 2                         arXiv:1606.08415
    gelu_tanh  x * (1 + tanh(u)) / 2,  u = sqrt(2 / pi) * (x + 0.044715 x^3)
    silu       x / (1 + exp(-x))                                      arXiv:1702.03118

(1 + tanh(u)) / 2 is the logistic function of 2 u, so gelu_tanh and silu need only that one.
"""

from __future__ import annotations

import triton
import triton.language as tl

NAMES = ("none", "relu", "gelu", "gelu_tanh", "silu")

_SQRT_HALF: tl.constexpr = tl.constexpr(0.7071067811865476)
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
def activate(x, NAME: tl.constexpr):
    """The activation called NAME of float32 values."""
    if NAME == "relu":
        # A comparison with NaN is false: it stays NaN, as in torch.
        x = tl.where(x < 0, 0.0, x)
    elif NAME == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * _SQRT_HALF))
    elif NAME == "gelu_tanh":
        x = x * logistic(x * (_TANH_LINEAR + _TANH_CUBIC * x * x))
    elif NAME == "silu":
        x = x * logistic(x)
    return x
