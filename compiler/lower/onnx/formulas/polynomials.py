"""Orthogonal polynomials, by the recurrences of three terms that torch uses, step by step.

Degrees are tensors. They are truncated to integers; below zero the result is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.approximation import operands
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import Step, repeat_while

aten = torch.ops.aten

# Floats from here on do not fit into int64; torch then treats the degree as negative.
_NO_DEGREE = 2.0**63
# Hermite polynomials of higher degrees are NaN in torch.
_HERMITE_LIMIT = {torch.float32: 128, torch.float64: 512}

Known = tuple[Tensor, Tensor]
"""A mask of where the result is known without a recurrence, and the result there."""


Next = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``next(d, x, before, last)``: degree d + 1 from the degrees d - 1 and d."""


@dataclass(frozen=True)
class Family:
    """What is specific to one family of polynomials.

    Attributes:
        first: ``first(x)``: degree 1.
        step: from two degrees, x, the degree and where the result is known to the next two degrees.
        known: ``known(n, x)``: what torch does not compute by the recurrence.
        shifted: whether it is the polynomial of 2x - 1.
    """

    first: Callable[[Tensor], Tensor]
    step: Step
    known: Callable[[Tensor, Tensor], Known]
    shifted: bool = False

    def __call__(self, x: Tensor | float, n: Tensor | float) -> Tensor:
        """Degree n at x, broadcast."""
        x, n = operands(x, n)
        x = x + x - 1 if self.shifted else x
        n = torch.where(n.abs() < _NO_DEGREE, n.trunc(), torch.full_like(n, -1))
        known, value = self.known(n, x)
        value = torch.where(n < 0, torch.zeros_like(x), value)
        known = known | (n < 0)
        state = [torch.ones_like(x), self.first(x)]
        _, last = repeat_while(_going, self.step, state, [x, n, known])
        return torch.where(known, value, torch.where(n == 0, torch.ones_like(x), last))


def _going(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> Tensor:
    """Whether step k is needed: it computes degree k + 2."""
    _, n, known = fixed
    return ~known & (n > k + 1) & ~state[1].isnan()


def _advanced(
    following: Next, k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]
) -> list[Tensor]:
    """The next two degrees where they are wanted."""
    x, (before, last) = fixed[0], state
    made = following((k + 1).to(x.dtype), x, before, last)
    active = _going(k, state, fixed)
    return [torch.where(active, last, before), torch.where(active, made, last)]


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a b - c`` rounded once, as processors do it: ``a b`` alone may overflow."""
    return (a.to(torch.float64) * b.to(torch.float64) - c.to(torch.float64)).to(b.dtype)


def _chebyshev(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return _advanced(lambda d, x, before, last: _fused(x + x, last, before), k, state, fixed)


def _legendre(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    def following(d: Tensor, x: Tensor, before: Tensor, last: Tensor) -> Tensor:
        return _fused((d + d + 1) * x, last, d * before) / (d + 1)

    return _advanced(following, k, state, fixed)


def _laguerre(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    def following(d: Tensor, x: Tensor, before: Tensor, last: Tensor) -> Tensor:
        return _fused(d + d + (1 - x), last, d * before) / (d + 1)

    return _advanced(following, k, state, fixed)


def _hermite(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    def following(d: Tensor, x: Tensor, before: Tensor, last: Tensor) -> Tensor:
        return _fused(x + x, last, (d + d) * before)

    return _advanced(following, k, state, fixed)


def _hermite_of_probability(
    k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]
) -> list[Tensor]:
    return _advanced(lambda d, x, before, last: _fused(x, last, d * before), k, state, fixed)


def _sign(n: Tensor) -> Tensor:
    """1 for an even degree, -1 for an odd one."""
    return 1 - 2 * n.fmod(2)


@dataclass(frozen=True)
class _ChebyshevKind:
    """A kind of Chebyshev polynomials, all of which share one recurrence.

    Attributes:
        offset: of degree 1, beside the leading term.
        factor: 1 or 2: the leading coefficient of degree 1.
        upper, lower: degree n at 1 and at -1.
        inside: degree n of the cosine of an angle.
        few: the last degree that torch does not compute by the angle; of the shifted ones.
    """

    factor: int
    offset: int
    upper: Callable[[Tensor], Tensor]
    lower: Callable[[Tensor], Tensor]
    inside: Callable[[Tensor, Tensor], Tensor]
    few: tuple[int, int]

    def family(self, shifted: bool) -> Family:
        """These polynomials of x, or of 2x - 1."""

        def first(x: Tensor) -> Tensor:
            return (x if self.factor == 1 else x + x) + self.offset

        def known(n: Tensor, x: Tensor) -> Known:
            size = x.abs()
            by_angle = (size < 1) & (n > self.few[shifted])
            ends = torch.where(x > 0, self.upper(n), self.lower(n))
            value = torch.where(size == 1, ends, self.inside(n, x.acos()))
            return by_angle | (size == 1), value

        return Family(first, _chebyshev, known, shifted)


CHEBYSHEV: dict[str, _ChebyshevKind] = {
    "t": _ChebyshevKind(
        1, 0, torch.ones_like, _sign, lambda n, angle: (n * angle).cos(), few=(6, 6)
    ),
    "u": _ChebyshevKind(
        2, 0, lambda n: n + 1, lambda n: _sign(n) * (n + 1),
        lambda n, angle: ((n + 1) * angle).sin() / angle.sin(), few=(8, 6),
    ),
    "v": _ChebyshevKind(
        2, -1, torch.ones_like, lambda n: _sign(n) * (n + n + 1),
        lambda n, angle: ((n + 0.5) * angle).cos() / (angle / 2).cos(), few=(8, 6),
    ),
    "w": _ChebyshevKind(
        2, 1, lambda n: n + n + 1, _sign,
        lambda n, angle: ((n + 0.5) * angle).sin() / (angle / 2).sin(), few=(8, 4),
    ),
}  # fmt: skip


def _legendre_known(n: Tensor, x: Tensor) -> Known:
    return x.abs() == 1, torch.where(x > 0, torch.ones_like(x), _sign(n))


def _laguerre_known(n: Tensor, x: Tensor) -> Known:
    return x == 0, torch.ones_like(x)


def _hermite_known(n: Tensor, x: Tensor) -> Known:
    return n > _HERMITE_LIMIT[x.dtype], torch.full_like(x, torch.nan)


OTHERS: dict[str, Family] = {
    "legendre_polynomial_p": Family(lambda x: x, _legendre, _legendre_known),
    "laguerre_polynomial_l": Family(lambda x: 1 - x, _laguerre, _laguerre_known),
    "hermite_polynomial_h": Family(lambda x: x + x, _hermite, _hermite_known),
    "hermite_polynomial_he": Family(lambda x: x, _hermite_of_probability, _hermite_known),
}


def _enter() -> None:
    families = dict(OTHERS)
    for letter, kind in CHEBYSHEV.items():
        families[f"chebyshev_polynomial_{letter}"] = kind.family(shifted=False)
        families[f"shifted_chebyshev_polynomial_{letter}"] = kind.family(shifted=True)
    for name, family in families.items():
        packet: Any = getattr(aten, f"special_{name}")
        formula(packet.default, packet.x_scalar, packet.n_scalar)(family)


_enter()
