"""Discrete Fourier transforms as products with tables of cosines and sines.

A transform of length n is a matrix product, which every runtime computes fast; for the lengths of
spectrograms and of hidden layers it is no slower than a fast transform. Tables of fixed length are
weights in the end; where a length is dynamic, the file computes its table from that length.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import dtype_of, same_size, shape_of
from strop.passes.legalize.pairs import NotSplitError, Pairs, is_complex, real_dtype, splits

aten = torch.ops.aten
# A table has n * n numbers.
LONGEST = 4096


@dataclass(frozen=True)
class Transform:
    """One transform along one axis.

    Attributes:
        dim: the axis, counted from the front.
        size: how many terms are summed: a number, or a node that computes it.
        forward: whether the exponent is negative.
        scale: of the result: "", "n" for 1/n, "root" for 1/sqrt(n).
    """

    dim: int
    size: Any
    forward: bool
    scale: str


def _table(on: Pairs, size: Any, bins: Any, forward: bool, dtype: torch.dtype) -> tuple[Node, Node]:
    """Cosines and signed sines of 2 pi jk/n, each [n, bins].

    The angle is taken from jk mod n, an integer, so that it is exact for large products too.
    """
    if isinstance(size, int) and size > LONGEST:
        raise NotSplitError(f"a Fourier transform of {size} points (at most {LONGEST})")
    exact = torch.float64 if isinstance(size, int) else dtype
    steps = on.call(aten.arange.default, size)
    turn = on.call(aten.to.dtype, steps, exact)
    turn = on.call(aten.div.Tensor, on.call(aten.mul.Tensor, turn, 2 * math.pi), size)
    rows = on.call(aten.unsqueeze.default, steps, 1)
    products = on.call(aten.mul.Tensor, rows, on.call(aten.arange.default, bins))
    where = on.call(aten.remainder.Scalar, products, size)
    sines = on.call(aten.sin.default, turn)
    sines = on.call(aten.neg.default, sines) if forward else sines
    both = (on.call(aten.cos.default, turn), sines)
    cos, sin = (on.call(aten.index.Tensor, on.call(aten.to.dtype, t, dtype), [where]) for t in both)
    return cos, sin


def _pair_table(on: Pairs, cos: Node, sin: Node, from_pairs: bool) -> Node:
    """[n, 2 * bins] for reals, [2 * n, 2 * bins] for pairs: the parts beside each other."""
    first = on.call(aten.stack.default, [cos, sin], -1)
    if not from_pairs:
        return on.call(aten.flatten.using_ints, first, 1, 2)
    second = on.call(aten.stack.default, [on.call(aten.neg.default, sin), cos], -1)
    both = on.call(aten.stack.default, [first, second], 1)
    return on.call(aten.flatten.using_ints, on.call(aten.flatten.using_ints, both, 2, 3), 0, 1)


def _fit(on: Pairs, x: Node, dim: int, size: Any) -> Node:
    """Crop, or fill up with zeros, to ``size`` along an axis."""
    found = on.size(x, dim)
    if same_size(*(s.meta["val"] if isinstance(s, Node) else s for s in (found, size))):
        return x
    if not (isinstance(found, int) and isinstance(size, int) and found > size):
        behind = [0, 0] * (len(shape_of(x)) - 1 - dim)
        x = on.call(aten.constant_pad_nd.default, x, [*behind, 0, size], 0.0)
    return on.call(aten.slice.Tensor, x, dim, 0, size)


def _scaled(on: Pairs, x: Node, transform: Transform) -> Node:
    size, scale = transform.size, transform.scale
    if not scale:
        return x
    if isinstance(size, int):
        return on.call(aten.mul.Tensor, x, 1 / size if scale == "n" else size**-0.5)
    if scale == "n":
        return on.call(aten.div.Tensor, x, size)
    root = on.call(aten.sqrt.default, on.call(aten.full.default, [], size, dtype=dtype_of(x)))
    return on.call(aten.div.Tensor, x, root)


def _to_pairs(on: Pairs, x: Node, from_pairs: bool, transform: Transform, bins: Any) -> Node:
    """Transform reals or pairs along an axis, to pairs of the first ``bins`` frequencies."""
    last = len(shape_of(x)) - 1 - from_pairs
    x = on.call(aten.transpose.int, _fit(on, x, transform.dim, transform.size), transform.dim, last)
    flat = on.call(aten.flatten.using_ints, x, last, last + 1) if from_pairs else x
    cos, sin = _table(on, transform.size, bins, transform.forward, dtype_of(x))
    made = on.call(aten.matmul.default, flat, _pair_table(on, cos, sin, from_pairs))
    pair = on.call(aten.unflatten.int, _scaled(on, made, transform), last, [-1, 2])
    return on.call(aten.transpose.int, pair, transform.dim, last)


def _to_reals(on: Pairs, pair: Node, transform: Transform) -> Node:
    """The real signal of ``size`` points with these first frequencies, the rest mirrored."""
    last = len(shape_of(pair)) - 2
    bins = _half(on, transform.size)
    pair = on.call(aten.transpose.int, _fit(on, pair, transform.dim, bins), transform.dim, last)
    table = _real_table(on, transform.size, bins, transform.forward, dtype_of(pair))
    flat = on.call(aten.flatten.using_ints, pair, last, last + 1)
    made = _scaled(on, on.call(aten.matmul.default, flat, table), transform)
    return on.call(aten.transpose.int, made, transform.dim, last)


def _real_table(on: Pairs, size: Any, bins: Any, forward: bool, dtype: torch.dtype) -> Node:
    """[2 * bins, n]: each frequency twice, but those that are their own mirror images."""
    cos, sin = _table(on, size, bins, forward, dtype)
    both = [on.call(aten.t.default, t) for t in (cos, on.call(aten.neg.default, sin))]
    steps = on.call(aten.arange.default, bins)
    doubled = on.call(aten.remainder.Scalar, on.call(aten.mul.Tensor, steps, 2), size)
    weight = on.call(aten.to.dtype, on.call(aten.ne.Scalar, doubled, 0), dtype)
    weight = on.call(aten.unsqueeze.default, on.call(aten.add.Tensor, weight, 1), 1)
    rows = [on.call(aten.mul.Tensor, t, weight) for t in both]
    return on.call(aten.flatten.using_ints, on.call(aten.stack.default, rows, 1), 0, 1)


def _half(on: Pairs, size: Any) -> Any:
    return on.size_of(operator.add, on.size_of(operator.floordiv, size, 2), 1)


def _scale(norm: str | None, forward: bool) -> str:
    if norm == "ortho":
        return "root"
    return "n" if (norm == "forward") == forward else ""


def _axis(on: Pairs, x: Node, dim: int, n: Any, norm: str | None, forward: bool) -> Transform:
    """A transform of reals, or of pairs, along an axis counted from the front."""
    return Transform(dim, on.size(x, dim) if n is None else n, forward, _scale(norm, forward))


def _as_float(on: Pairs, node: Node, x: Node) -> Node:
    """A real input in the dtype in which torch transforms it."""
    return on.call(aten.to.dtype, x, real_dtype(node))


def _source(on: Pairs, node: Node, x: Node) -> Node:
    return on.pair(x) if is_complex(x) else _as_float(on, node, x)


def _as_pair(on: Pairs, node: Node, x: Node) -> Node:
    """Half a spectrum as pairs: where it is given as reals, their imaginary parts are zero."""
    return on.pair(x if is_complex(x) else _as_float(on, node, x))


@splits(aten.fft_fft.default, aten.fft_ifft.default)
def fft(on: Pairs, node: Node, x: Node, n: Any = None, dim: int = -1, norm: Any = None) -> Node:
    source, dim = _source(on, node, x), dim % len(shape_of(x))
    one = _axis(on, source, dim, n, norm, node.target is aten.fft_fft.default)
    return _to_pairs(on, source, is_complex(x), one, one.size)


@splits(aten.fft_rfft.default)
def rfft(on: Pairs, node: Node, x: Node, n: Any = None, dim: int = -1, norm: Any = None) -> Node:
    source = _as_float(on, node, x)
    one = _axis(on, source, dim % len(shape_of(x)), n, norm, True)
    return _to_pairs(on, source, False, one, _half(on, one.size))


@splits(aten.fft_ihfft.default)
def ihfft(on: Pairs, node: Node, x: Node, n: Any = None, dim: int = -1, norm: Any = None) -> Node:
    source = _as_float(on, node, x)
    one = _axis(on, source, dim % len(shape_of(x)), n, norm, False)
    return _to_pairs(on, source, False, one, _half(on, one.size))


@splits(aten.fft_irfft.default)
def irfft(on: Pairs, node: Node, x: Node, n: Any = None, dim: int = -1, norm: Any = None) -> Node:
    return _mirrored(on, _as_pair(on, node, x), n, dim, norm, forward=False)


@splits(aten.fft_hfft.default)
def hfft(on: Pairs, node: Node, x: Node, n: Any = None, dim: int = -1, norm: Any = None) -> Node:
    return _mirrored(on, _as_pair(on, node, x), n, dim, norm, forward=True)


def _mirrored(on: Pairs, pair: Node, n: Any, dim: int, norm: Any, forward: bool) -> Node:
    dim = dim % (len(shape_of(pair)) - 1)
    if n is None:
        n = on.size_of(operator.mul, on.size_of(operator.sub, on.size(pair, dim), 1), 2)
    return _to_reals(on, pair, Transform(dim, n, forward, _scale(norm, forward)))


def _axes(x: Node, s: Any, dims: Any) -> list[tuple[int, Any]]:
    """Each axis of a transform over several, with its size where one is given."""
    rank = len(shape_of(x))
    if dims is None:
        dims = range(rank) if s is None else range(rank - len(s), rank)
    sizes = [None] * len(dims) if s is None else [None if n == -1 else n for n in s]
    return list(zip([d % rank for d in dims], sizes))


@splits(
    aten.fft_fft2.default, aten.fft_fftn.default, aten.fft_ifft2.default, aten.fft_ifftn.default
)
def fftn(on: Pairs, node: Node, x: Node, s: Any = None, dim: Any = None, norm: Any = None) -> Node:
    two = node.target in (aten.fft_fft2.default, aten.fft_ifft2.default)
    forward = node.target in (aten.fft_fft2.default, aten.fft_fftn.default)
    axes = _axes(x, s, [-2, -1] if dim is None and two else dim)
    return _over(on, _source(on, node, x), is_complex(x), axes, norm, forward)


def _over(
    on: Pairs, value: Node, from_pairs: bool, axes: Sequence[tuple[int, Any]], norm: Any,
    forward: bool,
) -> Node:  # fmt: skip
    """Transform along several axes, the last one first."""
    for dim, n in reversed(axes):
        size = on.size(value, dim) if n is None else n
        one = Transform(dim, size, forward, _scale(norm, forward))
        value, from_pairs = _to_pairs(on, value, from_pairs, one, size), True
    return value


@splits(aten.fft_rfft2.default, aten.fft_rfftn.default)
def rfftn(on: Pairs, node: Node, x: Node, s: Any = None, dim: Any = None, norm: Any = None) -> Node:
    two = node.target is aten.fft_rfft2.default
    *axes, (last, n) = _axes(x, s, [-2, -1] if dim is None and two else dim)
    return _over(on, rfft(on, node, x, n, last, norm), True, axes, norm, True)


@splits(aten.fft_ihfft2.default, aten.fft_ihfftn.default)
def ihfftn(
    on: Pairs, node: Node, x: Node, s: Any = None, dim: Any = None, norm: Any = None
) -> Node:
    two = node.target is aten.fft_ihfft2.default
    *axes, (last, n) = _axes(x, s, [-2, -1] if dim is None and two else dim)
    return _over(on, ihfft(on, node, x, n, last, norm), True, axes, norm, False)


@splits(
    aten.fft_irfft2.default, aten.fft_irfftn.default, aten.fft_hfft2.default, aten.fft_hfftn.default
)
def irfftn(
    on: Pairs, node: Node, x: Node, s: Any = None, dim: Any = None, norm: Any = None
) -> Node:
    two = node.target in (aten.fft_irfft2.default, aten.fft_hfft2.default)
    forward = node.target in (aten.fft_hfft2.default, aten.fft_hfftn.default)
    *axes, (last, n) = _axes(x, s, [-2, -1] if dim is None and two else dim)
    pair = _over(on, _as_pair(on, node, x), True, axes, norm, forward)
    return _mirrored(on, pair, n, last, norm, forward)


# They give reals, and compute with complex numbers even where reals are given.
TO_REALS = (
    aten.fft_irfft.default, aten.fft_irfft2.default, aten.fft_irfftn.default,
    aten.fft_hfft.default, aten.fft_hfft2.default, aten.fft_hfftn.default,
)  # fmt: skip


def frames_table(on: Pairs, node: Node, size: int, window: Node, forward: bool) -> Node:
    """[2 * bins, 1, size]: a transform under a window, as the kernel of a convolution."""
    bins, dtype = size // 2 + 1, real_dtype(node)
    if forward:
        cos, sin = _table(on, size, bins, True, dtype)
        table = on.call(aten.t.default, _pair_table(on, cos, sin, False))
    else:
        table = _real_table(on, size, bins, False, dtype)
    return on.call(aten.unsqueeze.default, on.call(aten.mul.Tensor, table, window), 1)
