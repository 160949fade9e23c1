"""Which axes of a result are whole axes of what it is computed from, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.families import VIEWS
from strop.compiler.ir.nodes import expression, shape_of, static_int, tensors_of

aten = torch.ops.aten
strop = torch.ops.strop

Origins = list[int | None]
"""For each axis of the result, the axis of the argument that it is, from the front, or None."""


@dataclass(frozen=True)
class Kept:
    """How an operator treats the axes of its main arguments.

    Attributes:
        main: names of the arguments whose axes these are; lists of tensors count as well.
        origins: of a call's arguments, the first main one, and the rank of the result.
        same: each element of the result is one of the argument's.
        packable: it needs no other position, and none of its arguments varies with the position.
    """

    main: tuple[str, ...]
    origins: Callable[[dict[str, Any], Node, Node], Origins]
    same: bool = False
    packable: bool = True


def _all(rank: int) -> Origins:
    return list(range(rank))


def _rank(x: Node) -> int:
    return len(tensors_of(x)[0].shape)


def _but_last(given: dict[str, Any], x: Node, node: Node) -> Origins:
    return [*_all(_rank(x) - 1), None]


def _but_dim(given: dict[str, Any], x: Node, node: Node) -> Origins:
    rank = _rank(x)
    axis = int(given["dim"]) % rank
    return [None if i == axis else i for i in range(rank)]


def _but_normalized(given: dict[str, Any], x: Node, node: Node) -> Origins:
    normed = len(given["normalized_shape"])
    return [*_all(_rank(x) - normed), *[None] * normed]


def _reduced(given: dict[str, Any], x: Node, node: Node) -> Origins:
    rank, asked = _rank(x), given["dim"]
    axes = range(rank) if not asked and asked != 0 else [asked] if isinstance(asked, int) else asked
    gone = {int(axis) % rank for axis in axes} if rank else set()
    if given.get("keepdim"):
        return [None if i in gone else i for i in range(rank)]
    return [i for i in range(rank) if i not in gone]


def _selected(given: dict[str, Any], x: Node, node: Node) -> Origins:
    rank = _rank(x)
    axis = int(given["dim"]) % rank
    return [i for i in range(rank) if i != axis]


def _unsqueezed(given: dict[str, Any], x: Node, node: Node) -> Origins:
    rank = _rank(x)
    axis = int(given["dim"]) % (rank + 1)
    made: Origins = list(_all(rank))
    made.insert(axis, None)
    return made


def _but_scaled(given: dict[str, Any], x: Node, node: Node) -> Origins:
    """One scale for all positions; not one for each along an axis."""
    rank = _rank(x)
    axis = None if given["axis"] is None else int(given["axis"]) % rank
    return [None if i == axis else i for i in range(rank)]


def _by_matrix(given: dict[str, Any], x: Node, node: Node) -> Origins:
    """A product with one matrix for all positions; with one for each sequence nothing is kept."""
    if _rank(given["other"]) == 2:
        return _but_last(given, x, node)
    return [None] * _rank(node)


def _squeezed(given: dict[str, Any], x: Node, node: Node) -> Origins:
    """Without the axes named that have one position."""
    rank, asked = _rank(x), given["dim"]
    named = {int(axis) % rank for axis in ([asked] if isinstance(asked, int) else asked)}
    return [i for i in range(rank) if i not in named or static_int(shape_of(x)[i]) != 1]


def _transposed(given: dict[str, Any], x: Node, node: Node) -> Origins:
    made = _all(_rank(x))
    a, b = int(given["dim0"]), int(given["dim1"])
    made[a], made[b] = made[b], made[a]
    return made


def _permuted(given: dict[str, Any], x: Node, node: Node) -> Origins:
    rank = _rank(x)
    return [int(axis) % rank for axis in given["dims"]]


def _expanded(given: dict[str, Any], x: Node, node: Node) -> Origins:
    """Axes of one position that are repeated are none of the argument's."""
    old, new = shape_of(x), shape_of(node)
    added = len(new) - len(old)
    return [
        i - added if i >= added and expression(old[i - added]) == expression(size) else None
        for i, size in enumerate(new)
    ]


def _viewed(given: dict[str, Any], x: Node, node: Node) -> Origins:
    """An axis stays itself if its size and the product of the sizes before it stay."""
    old, new = _with_products(shape_of(x)), _with_products(shape_of(node))
    found: Origins = []
    for axis in new:
        start = max((i + 1 for i in found if i is not None), default=0)
        found.append(next((i for i in range(start, len(old)) if old[i] == axis), None))
    return found


def _with_products(shape: Sequence[Any]) -> list[tuple[Any, Any]]:
    before, made = 1, []
    for size in shape:
        made.append((before, expression(size)))
        before = before * expression(size)
    return made


KEPT: dict[Any, Kept] = {
    aten.unsqueeze.default: Kept(("self",), _unsqueezed, same=True),
    aten.squeeze.dim: Kept(("self",), _squeezed, same=True),
    aten.squeeze.dims: Kept(("self",), _squeezed, same=True),
    aten.transpose.int: Kept(("self",), _transposed, same=True),
    aten.permute.default: Kept(("self",), _permuted, same=True),
    aten.select.int: Kept(("self",), _selected, same=True),
    aten.slice.Tensor: Kept(("self",), _but_dim, same=True),
    aten.split.Tensor: Kept(("self",), _but_dim, same=True),
    aten.split_with_sizes.default: Kept(("self",), _but_dim, same=True),
    aten.chunk.default: Kept(("self",), _but_dim, same=True),
    aten.unbind.int: Kept(("self",), _selected, same=True),
    aten.expand.default: Kept(("self",), _expanded, same=True),
    aten.expand_as.default: Kept(("self", "other"), _expanded),
    aten.matmul.default: Kept(("self",), _by_matrix),
    aten.cat.default: Kept(("tensors",), _but_dim),
    aten.linear.default: Kept(("input",), _but_last),
    strop.linear_nbits.default: Kept(("x",), _but_last),
    strop.linear_w8a8.default: Kept(("x",), _but_last),
    strop.linear_w8a8_rows.default: Kept(("x",), _but_last),
    strop.linear_fp8.default: Kept(("x",), _but_last),
    aten.layer_norm.default: Kept(("input",), _but_normalized),
    aten.rms_norm.default: Kept(("input",), _but_normalized),
    strop.skip_layer_norm.default: Kept(("x", "skip"), _but_last),
    strop.skip_rms_norm.default: Kept(("x", "skip"), _but_last),
    strop.rotary.default: Kept(("x",), _but_last, packable=False),
    strop.fake_quantize.default: Kept(("x",), _but_scaled),
    aten.glu.default: Kept(("self",), _but_dim),
    **dict.fromkeys(VIEWS, Kept(("self",), _viewed, same=True)),
    **dict.fromkeys(
        (aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._log_softmax.default),
        Kept(("self",), _but_dim),
    ),
    **dict.fromkeys(
        (
            aten.sum.dim_IntList,
            aten.mean.dim,
            aten.amax.default,
            aten.amin.default,
            aten.argmax.default,
            aten.var.correction,
            aten.logsumexp.default,
            aten.linalg_vector_norm.default,
        ),
        Kept(("self",), _reduced),
    ),
}
"""Operators that keep axes; those that work element by element are not listed."""
LINEARS = (
    aten.linear.default,
    strop.linear_fp8.default,
    strop.linear_nbits.default,
    strop.linear_w8a8.default,
    strop.linear_w8a8_rows.default,
)
"""Where computing on fewer rows pays: products with weights."""
