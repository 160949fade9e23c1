"""Arithmetic on complex numbers as pairs of reals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.passes.legalize.pairs import NotSplitError, Pairs, is_complex, real_dtype, splits

aten = torch.ops.aten


def _add(on: Pairs, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return on.call(aten.add.Tensor, a, b) if isinstance(a, Node) else _add(on, b, a)


def _times(on: Pairs, a: Any, b: Any) -> Any:
    """A product in which None is zero; at least one factor is a tensor."""
    if a is None or b is None:
        return None
    return on.call(aten.mul.Tensor, a, b) if isinstance(a, Node) else _times(on, b, a)


def _minus(on: Pairs, a: Any, b: Any) -> Any:
    if b is None:
        return a
    return on.call(aten.neg.default, b) if a is None else on.call(aten.sub.Tensor, a, b)


def product(on: Pairs, a: Any, b: Any) -> Node:
    """The pair of a product: (ac - bd) + (ad + bc) i."""
    (re1, im1), (re2, im2) = on.parts(a), on.parts(b)
    real = _minus(on, _times(on, re1, re2), _times(on, im1, im2))
    return on.join(real, _add(on, _times(on, re1, im2), _times(on, im1, re2)))


@splits(aten.view_as_complex.default, aten.view_as_complex_copy.default)
def view_as_complex(on: Pairs, node: Node, x: Node) -> Node:
    return x


@splits(aten.view_as_real.default, aten.view_as_real_copy.default)
def view_as_real(on: Pairs, node: Node, x: Node) -> Node:
    return on.pair(x)


@splits(aten.complex.default)
def complex_(on: Pairs, node: Node, real: Node, imaginary: Node) -> Node:
    return on.join(real, imaginary)


@splits(aten.polar.default)
def polar(on: Pairs, node: Node, length: Any, angle: Node) -> Node:
    cos, sin = on.call(aten.cos.default, angle), on.call(aten.sin.default, angle)
    return on.join(_times(on, length, cos), _times(on, length, sin))


@splits(aten.real.default)
def real(on: Pairs, node: Node, x: Node) -> Node:
    return on.call(aten.select.int, on.pair(x), -1, 0)


@splits(aten.imag.default)
def imaginary(on: Pairs, node: Node, x: Node) -> Node:
    return on.call(aten.select.int, on.pair(x), -1, 1)


@splits(aten.select.int)
def select(on: Pairs, node: Node, x: Node, dim: int, index: Any) -> Node:
    return on.call(aten.select.int, on.pair(x), dim % len(shape_of(x)), index)


@splits(aten.abs.default)
def length(on: Pairs, node: Node, x: Node) -> Node:
    re, im = on.parts(x)
    squares = [on.call(aten.mul.Tensor, part, part) for part in (re, im)]
    return on.call(aten.sqrt.default, on.call(aten.add.Tensor, *squares))


@splits(aten.angle.default)
def angle(on: Pairs, node: Node, x: Node) -> Node:
    re, im = on.parts(x)
    return on.call(aten.atan2.default, im, re)


@splits(aten._conj.default, aten.conj.default, aten.conj_physical.default)
def conj(on: Pairs, node: Node, x: Node) -> Node:
    re, im = on.parts(x)
    return on.join(re, on.call(aten.neg.default, im))


@splits(
    aten.resolve_conj.default, aten.resolve_neg.default, aten.detach.default,
    aten.contiguous.default, aten.clone.default, aten.alias.default, aten.lift_fresh_copy.default,
)  # fmt: skip
def same(on: Pairs, node: Node, x: Node, *_: Any) -> Node:
    return on.pair(x)


@splits(aten.to.dtype, aten._to_copy.default, aten.to.device, aten.to.dtype_layout)
def convert(on: Pairs, node: Node, x: Node, *_: Any, **__: Any) -> Node:
    if not is_complex(node):
        return on.call(aten.to.dtype, on.parts(x)[0], dtype_of(node))
    if not is_complex(x):
        return on.pair(on.call(aten.to.dtype, x, real_dtype(node)))
    return on.call(aten.to.dtype, on.pair(x), real_dtype(node))


@splits(aten.add.Tensor)
def add(on: Pairs, node: Node, a: Any, b: Any, alpha: Any = 1) -> Node:
    return _sum(on, a, b, alpha)


@splits(aten.sub.Tensor)
def sub(on: Pairs, node: Node, a: Any, b: Any, alpha: Any = 1) -> Node:
    return _sum(on, a, b, -alpha)


@splits(aten.rsub.Scalar)
def sub_from(on: Pairs, node: Node, a: Any, b: Any, alpha: Any = 1) -> Node:
    return _sum(on, b, a, -alpha)


def _sum(on: Pairs, a: Any, b: Any, alpha: Any) -> Node:
    if isinstance(alpha, complex):
        raise NotSplitError("its alpha is complex")
    (re1, im1), (re2, im2) = on.parts(a), on.parts(b)
    return on.join(_add(on, re1, _scaled(on, re2, alpha)), _add(on, im1, _scaled(on, im2, alpha)))


def _scaled(on: Pairs, value: Any, factor: Any) -> Any:
    """A tensor or a number times a number; None is zero."""
    number = isinstance(value, (int, float))
    return value * factor if number else _times(on, value, factor)


@splits(aten.mul.Tensor)
def mul(on: Pairs, node: Node, a: Any, b: Any) -> Node:
    return product(on, a, b)


@splits(aten.square.default)
def square(on: Pairs, node: Node, x: Node) -> Node:
    return product(on, x, x)


@splits(aten.neg.default)
def neg(on: Pairs, node: Node, x: Node) -> Node:
    return on.call(aten.neg.default, on.pair(x))


@splits(aten.div.Tensor)
def div(on: Pairs, node: Node, a: Any, b: Any) -> Node:
    """(ac + bd)/(cc + dd) + (bc - ad)/(cc + dd) i, scaled so that no square overflows."""
    (re1, im1), (re2, im2) = on.parts(a), on.parts(b)
    if im2 is None:
        parts = [on.call(aten.div.Tensor, part, re2) for part in (re1, im1)]
        return on.join(*parts)
    if not isinstance(re2, Node):
        return product(on, a, 1 / b)
    sizes = [on.call(aten.abs.default, part) for part in (re2, im2)]
    scale = on.call(aten.maximum.default, *sizes)
    re2, im2 = (on.call(aten.div.Tensor, part, scale) for part in (re2, im2))
    squares = [on.call(aten.mul.Tensor, part, part) for part in (re2, im2)]
    below = on.call(aten.mul.Tensor, on.call(aten.add.Tensor, *squares), scale)
    above = _add(on, _times(on, re1, re2), _times(on, im1, im2))
    side = _minus(on, _times(on, im1, re2), _times(on, re1, im2))
    return on.join(*(on.call(aten.div.Tensor, part, below) for part in (above, side)))


@splits(aten.reciprocal.default)
def reciprocal(on: Pairs, node: Node, x: Node) -> Node:
    return div(on, node, 1.0, x)


@splits(aten.exp.default)
def exp(on: Pairs, node: Node, x: Node) -> Node:
    re, im = on.parts(x)
    return polar(on, node, on.call(aten.exp.default, re), im)


@splits(aten.log.default)
def log(on: Pairs, node: Node, x: Node) -> Node:
    return on.join(on.call(aten.log.default, length(on, node, x)), angle(on, node, x))


@splits(aten.sqrt.default)
def sqrt(on: Pairs, node: Node, x: Node) -> Node:
    root = on.call(aten.sqrt.default, length(on, node, x))
    return polar(on, node, root, on.call(aten.mul.Tensor, angle(on, node, x), 0.5))


@splits(aten.pow.Tensor_Scalar)
def power(on: Pairs, node: Node, x: Node, exponent: Any) -> Node:
    if exponent != 2:
        raise NotSplitError(f"the power {exponent} of complex numbers")
    return product(on, x, x)


@splits(aten.sgn.default)
def sgn(on: Pairs, node: Node, x: Node) -> Node:
    size = length(on, node, x)
    none = on.call(aten.eq.Scalar, size, 0)
    size = on.call(aten.masked_fill.Scalar, size, none, 1)
    return on.call(aten.div.Tensor, on.pair(x), on.call(aten.unsqueeze.default, size, -1))


def _bilinear(on: Pairs, a: Node, b: Node, times: Callable[[Node, Node], Node]) -> Node:
    """The pair of a product of two complex tensors, from products of their parts."""
    (re1, im1), (re2, im2) = on.parts(a), on.parts(b)
    real = on.call(aten.sub.Tensor, times(re1, re2), times(im1, im2))
    return on.join(real, on.call(aten.add.Tensor, times(re1, im2), times(im1, re2)))


@splits(aten.matmul.default, aten.mm.default, aten.bmm.default)
def matmul(on: Pairs, node: Node, a: Node, b: Node) -> Node:
    return _bilinear(on, a, b, lambda x, y: on.call(node.target, x, y))


@splits(aten.einsum.default)
def einsum(on: Pairs, node: Node, equation: str, operands: list[Node], *_: Any, **__: Any) -> Node:
    if len(operands) != 2:
        raise NotSplitError("einsum of complex numbers with another number of operands than two")
    a, b = operands
    return _bilinear(on, a, b, lambda x, y: on.call(node.target, equation, [x, y]))
