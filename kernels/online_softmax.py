"""Softmax of scores that come block by block, within kernels: arXiv:1805.02867.

A row's state is ``top``, the largest score so far times ``unit``, and ``total``, the sum of
2^(unit * score - top). What was summed before is shrunk when a larger score comes.
"""

from __future__ import annotations

import triton
import triton.language as tl

# e^x = 2^(LOG2E * x), and GPUs have an instruction for powers of two.
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
HIDDEN: tl.constexpr = tl.constexpr(float("-inf"))
# tanh(x) = x + x^3 (T1 + T3 x^2 + ...) near 0.
_T1: tl.constexpr = tl.constexpr(-3.33332819422e-1)
_T3: tl.constexpr = tl.constexpr(1.33314422036e-1)
_T5: tl.constexpr = tl.constexpr(-5.37397155531e-2)
_T7: tl.constexpr = tl.constexpr(2.06390887954e-2)
_T9: tl.constexpr = tl.constexpr(-5.70498872745e-3)


@triton.jit
def fold(scores, top, total, unit):
    """Take a block of scores [rows, keys] into the state (top, total), each [rows] float32.

    Scores are finite, also when multiplied by ``unit``, which is above 0; or -inf for hidden keys.

    Returns:
        the block's weights, the new top and total, and the factor for what was summed before.
        Rows that have seen hidden keys only have weights and a total of 0.
    """
    highest = tl.max(scores, 1)
    # Otherwise -inf - -inf, which is no number, would follow; so too below.
    from_highest = scores - tl.where(highest == HIDDEN, 0.0, highest)[:, None]
    mine = highest * unit
    new = tl.maximum(top, mine)
    base = tl.where(new == HIDDEN, 0.0, new)
    # A GPU multiplies and subtracts in one step, without rounding the product: where ``mine`` is
    # the new top, ``mine - base`` would be its rounding, which is large for large scores.
    below = tl.where(mine >= top, 0.0, mine - base)
    weights = tl.exp2(from_highest * unit + below[:, None])
    shrink = tl.exp2(top - base)
    return weights, new, total * shrink + tl.sum(weights, 1), shrink


@triton.jit
def bounded(scores, bound):
    """``bound * tanh(scores / bound)``, right to a few units of its last digit.

    Near 0, where a quotient of exponentials would lose digits, by the polynomial of tanhf in the
    Cephes library (S. L. Moshier), for |x| < 0.625.
    """
    x = scores * (1.0 / bound)
    square = x * x
    near = ((_T9 * square + _T7) * square + _T5) * square + _T3
    near = (near * square + _T1) * square * x + x
    small = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - small) / (1.0 + small)
    return bound * tl.where(tl.abs(x) < 0.625, near, tl.where(x < 0, -far, far))


def bound_of(softcap: float, scale: float) -> float | None:
    """The bound of scores before they are scaled; None where nothing bounds them."""
    return softcap / scale if softcap else None


@triton.jit
def mean(sums, total):
    """Weighted sums [rows, columns] divided by the weights' total; 0 where all was hidden."""
    return sums / tl.where(total == 0, 1.0, total)[:, None]
