"""Shapes, places and sums of complex tensors, as pairs: axes are counted from the front."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, shape_of
from strop.passes.legalize.pairs import NotSplitError, Pairs, is_complex, splits

aten = torch.ops.aten


def _front(x: Any, dim: int, more: int = 0) -> int:
    """An axis counted from the front; ``more`` for one that the result will have."""
    return dim % (len(shape_of(x)) + more)


def _fronts(x: Any, dims: Sequence[int] | None) -> list[int]:
    """The same of several axes; of all where none are named."""
    return [_front(x, d) for d in dims or range(len(shape_of(x)))]


@splits(operator.getitem)
def item(on: Pairs, node: Node, x: Node, number: int) -> Node:
    return on.call(operator.getitem, on.known[x], number)


@splits(aten.sym_size.int)
def size(on: Pairs, node: Node, x: Node, dim: int) -> Node:
    return on.call(aten.sym_size.int, on.pair(x), _front(x, dim))


@splits(aten.view.default, aten.reshape.default)
def reshape(on: Pairs, node: Node, x: Node, sizes: list[Any]) -> Node:
    return on.call(aten.reshape.default, on.pair(x), [*sizes, 2])


@splits(aten.expand.default)
def expand(on: Pairs, node: Node, x: Node, sizes: list[Any], *_: Any, **__: Any) -> Node:
    pair = on.pair(x)
    for _new in range(len(sizes) - len(shape_of(x))):
        pair = on.call(aten.unsqueeze.default, pair, 0)
    return on.call(aten.expand.default, pair, [*sizes, -1])


@splits(aten.repeat.default)
def repeat(on: Pairs, node: Node, x: Node, times: list[Any]) -> Node:
    return on.call(aten.repeat.default, on.pair(x), [*times, 1])


@splits(aten.unsqueeze.default)
def unsqueeze(on: Pairs, node: Node, x: Node, dim: int) -> Node:
    return on.call(aten.unsqueeze.default, on.pair(x), _front(x, dim, 1))


@splits(aten.squeeze.dim)
def squeeze(on: Pairs, node: Node, x: Node, dim: int) -> Node:
    return on.call(aten.squeeze.dim, on.pair(x), _front(x, dim))


@splits(aten.squeeze.dims)
def squeeze_several(on: Pairs, node: Node, x: Node, dims: list[int]) -> Node:
    return on.call(aten.squeeze.dims, on.pair(x), _fronts(x, dims))


@splits(aten.transpose.int)
def transpose(on: Pairs, node: Node, x: Node, a: int, b: int) -> Node:
    return on.call(aten.transpose.int, on.pair(x), _front(x, a), _front(x, b))


@splits(aten.t.default, aten.mT.default)
def swap_last(on: Pairs, node: Node, x: Node) -> Node:
    rank = len(shape_of(x))
    return on.call(aten.transpose.int, on.pair(x), max(rank - 2, 0), rank - 1)


@splits(aten.mH.default, aten.adjoint.default)
def adjoint(on: Pairs, node: Node, x: Node) -> Node:
    re, im = on.parts(x)
    pair = on.join(re, on.call(aten.neg.default, im))
    rank = len(shape_of(x))
    return on.call(aten.transpose.int, pair, rank - 2, rank - 1)


@splits(aten.numpy_T.default)
def reverse_axes(on: Pairs, node: Node, x: Node) -> Node:
    rank = len(shape_of(x))
    return on.call(aten.permute.default, on.pair(x), [*range(rank - 1, -1, -1), rank])


@splits(aten.permute.default)
def permute(on: Pairs, node: Node, x: Node, dims: list[int]) -> Node:
    return on.call(aten.permute.default, on.pair(x), [*_fronts(x, dims), len(shape_of(x))])


@splits(aten.movedim.int)
def movedim(on: Pairs, node: Node, x: Node, source: int, destination: int) -> Node:
    return on.call(aten.movedim.int, on.pair(x), _front(x, source), _front(x, destination))


@splits(aten.flatten.using_ints)
def flatten(on: Pairs, node: Node, x: Node, start: int = 0, end: int = -1) -> Node:
    return on.call(aten.flatten.using_ints, on.pair(x), _front(x, start), _front(x, end))


@splits(aten.unflatten.int)
def unflatten(on: Pairs, node: Node, x: Node, dim: int, sizes: list[Any]) -> Node:
    return on.call(aten.unflatten.int, on.pair(x), _front(x, dim), sizes)


@splits(aten.slice.Tensor, aten.narrow.default, aten.index_select.default, aten.cumsum.default)
def along(on: Pairs, node: Node, x: Node, dim: int = 0, *rest: Any, **options: Any) -> Node:
    return on.call(node.target, on.pair(x), _front(x, dim), *rest, **options)


@splits(aten.index.Tensor)
def index(on: Pairs, node: Node, x: Node, indices: list[Any]) -> Node:
    return on.call(aten.index.Tensor, on.pair(x), indices)


@splits(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
def split(on: Pairs, node: Node, x: Node, sizes: Any, dim: int = 0) -> Node:
    return on.call(node.target, on.pair(x), sizes, _front(x, dim))


@splits(aten.unbind.int)
def unbind(on: Pairs, node: Node, x: Node, dim: int = 0) -> Node:
    return on.call(aten.unbind.int, on.pair(x), _front(x, dim))


@splits(aten.cat.default, aten.concat.default)
def cat(on: Pairs, node: Node, tensors: list[Node], dim: int = 0) -> Node:
    return on.call(aten.cat.default, [on.pair(t) for t in tensors], _front(node, dim))


@splits(aten.stack.default)
def stack(on: Pairs, node: Node, tensors: list[Node], dim: int = 0) -> Node:
    return on.call(aten.stack.default, [on.pair(t) for t in tensors], _front(node, dim))


@splits(aten.flip.default)
def flip(on: Pairs, node: Node, x: Node, dims: list[int]) -> Node:
    return on.call(aten.flip.default, on.pair(x), _fronts(x, dims))


@splits(aten.roll.default)
def roll(on: Pairs, node: Node, x: Node, shifts: list[Any], dims: Sequence[int] = ()) -> Node:
    if not dims:
        raise NotSplitError("roll of complex numbers over all axes at once")
    return on.call(aten.roll.default, on.pair(x), shifts, _fronts(x, dims))


@splits(aten.fft_fftshift.default, aten.fft_ifftshift.default)
def shift(on: Pairs, node: Node, x: Node, dims: Any = None) -> Node:
    return on.call(node.target, on.pair(x), _fronts(x, dims))


@splits(aten.pad.default, aten.constant_pad_nd.default)
def pad(on: Pairs, node: Node, x: Node, *_: Any, **__: Any) -> Node:
    given = arguments(node)
    if given.get("mode", "constant") != "constant" or given["value"]:
        raise NotSplitError("padding of complex numbers with something other than zeros")
    return on.call(aten.constant_pad_nd.default, on.pair(x), [0, 0, *given["pad"]])


@splits(aten.where.self)
def where(on: Pairs, node: Node, condition: Node, a: Node, b: Node) -> Node:
    deep = on.call(aten.unsqueeze.default, condition, -1)
    return on.call(aten.where.self, deep, on.pair(a), on.pair(b))


@splits(aten.masked_fill.Scalar)
def masked_fill(on: Pairs, node: Node, x: Node, mask: Node, value: Any) -> Node:
    re, im = on.parts(x)
    number = complex(value)
    new = [(re, number.real), (im, number.imag)]
    return on.join(*(on.call(aten.masked_fill.Scalar, part, mask, v) for part, v in new))


@splits(aten.zeros_like.default)
def zeros_like(on: Pairs, node: Node, x: Node, **_: Any) -> Node:
    if not is_complex(x):
        raise NotSplitError("complex zeros like a real tensor")
    return on.call(aten.zeros_like.default, on.pair(x))


@splits(aten.sum.dim_IntList, aten.mean.dim)
def reduce(on: Pairs, node: Node, x: Node, dims: Any, keepdim: bool = False, **_: Any) -> Node:
    return on.call(node.target, on.pair(x), _fronts(x, dims), keepdim)


@splits(aten.sum.default)
def sum_all(on: Pairs, node: Node, x: Node, **_: Any) -> Node:
    return on.call(aten.sum.dim_IntList, on.pair(x), _fronts(x, None), False)


@splits(aten.mean.default)
def mean_all(on: Pairs, node: Node, x: Node, **_: Any) -> Node:
    return on.call(aten.mean.dim, on.pair(x), _fronts(x, None), False)
