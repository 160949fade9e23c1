"""Multiply-adds of the operators that do more than touch each element once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.dialect.experts import grouped_matmul
from strop.compiler.ir.families import CONVOLUTIONS, PRODUCTS, TRANSPOSED_CONVOLUTIONS
from strop.compiler.ir.nodes import arguments, tensors_of
from strop.compiler.ir.recurrent import TYPES as RECURRENT

aten = torch.ops.aten
strop = torch.ops.strop
Shape = tuple[int, ...]
ShapeOf = Callable[[torch.Tensor], Shape]


@dataclass(frozen=True)
class Work:
    """What an operator does beside reading its inputs and writing its outputs.

    Attributes:
        multiply_adds: how many.
        workspace: bytes that it needs while it runs.
    """

    multiply_adds: int = 0
    workspace: int = 0


@dataclass(frozen=True)
class _Call:
    """One call in numbers: the shape of its first result, and of its arguments by schema name."""

    result: Shape
    shapes: Mapping[str, Shape]
    values: Mapping[str, Any]

    @property
    def elements(self) -> int:
        return math.prod(self.result)


_ROWS: dict[Any, Callable[[_Call], Work]] = {}
# Operators on matrices, whatever their overload.
_DECOMPOSITIONS = """
    cholesky_solve inverse linalg_cholesky linalg_cholesky_ex linalg_det linalg_eig linalg_eigh
    linalg_eigvals linalg_eigvalsh linalg_inv linalg_inv_ex linalg_lstsq linalg_lu linalg_lu_factor
    linalg_matrix_exp linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex linalg_svd
    linalg_svdvals logdet matrix_exp pinverse
""".split()  # noqa: SIM905


def _row(*targets: Any) -> Callable[[Callable[[_Call], Work]], Callable[[_Call], Work]]:
    def enter(function: Callable[[_Call], Work]) -> Callable[[_Call], Work]:
        _ROWS.update(dict.fromkeys(targets, function))
        return function

    return enter


def work_of(node: Node, shape_of: ShapeOf) -> Work:
    """The work of a node at the sizes that ``shape_of`` gives; none of operators without a row."""
    row = _ROWS.get(node.target)
    if row is None and getattr(node.target, "_opname", "") in _DECOMPOSITIONS:
        row = _decomposition
    results = tensors_of(node)
    if row is None or not results:
        return Work()
    given = arguments(node)
    shapes = {
        name: _shape(value, shape_of)
        for name, value in given.items()
        if isinstance(value, Node) and tensors_of(value)
    }
    lists = {
        name: [_shape(v, shape_of) for v in value if isinstance(v, Node)]
        for name, value in given.items()
        if isinstance(value, (list, tuple))
    }
    return row(_Call(shape_of(results[0]), shapes, {**given, **lists}))


def _shape(value: Node, shape_of: ShapeOf) -> Shape:
    return shape_of(tensors_of(value)[0]) if tensors_of(value) else ()


@_row(aten.linear.default)
def _linear(call: _Call) -> Work:
    return Work(call.elements * call.shapes["weight"][-1])


@_row(
    *PRODUCTS, aten.mv.default, aten.dot.default,
    strop.fused_linear.default, strop.linear_fp8.default, strop.linear_int8.default,
    strop.linear_nbits.default, strop.linear_w8a8.default, strop.linear_w8a8_rows.default,
    strop.packed_linear.default, strop.scaled_linear_fp8.default,
)  # fmt: skip
def _product(call: _Call) -> Work:
    """Each element of the result is a sum over the last axis of the first factor."""
    first = next(iter(call.shapes.values()))
    return Work(call.elements * first[-1])


@_row(strop.gated_linear.default, strop.gated_linear_int8.default)
def _two_products(call: _Call) -> Work:
    return Work(2 * _product(call).multiply_adds)


@_row(aten.addmm.default, aten.baddbmm.default)
def _product_and_sum(call: _Call) -> Work:
    return Work(call.elements * list(call.shapes.values())[1][-1])


@_row(*CONVOLUTIONS, aten.conv3d.padding, aten.convolution.default, aten.bilinear.default)
def _convolution(call: _Call) -> Work:
    weight = call.shapes["weight"]
    return Work(call.elements * math.prod(weight[1:]))


@_row(*TRANSPOSED_CONVOLUTIONS)
def _transposed(call: _Call) -> Work:
    return Work(math.prod(call.shapes["input"]) * math.prod(call.shapes["weight"][1:]))


@_row(aten.scaled_dot_product_attention.default)
def _attention(call: _Call) -> Work:
    """Two products; the scores between them are in memory at once, in four bytes each."""
    query, keys = call.shapes["query"], call.shapes["key"][-2]
    scores = math.prod(query[:-1]) * keys
    return Work(scores * (query[-1] + call.result[-1]), 4 * scores)


@_row(strop.attention.default)
def _fused_attention(call: _Call) -> Work:
    """Two products, whether heads are packed or split; the scores are not in memory."""
    query, keys = call.shapes["q"], call.shapes["k"][-2]
    return Work(math.prod(query[:-1]) * keys * (query[-1] + call.result[-1]))


@_row(strop.cached_attention.default)
def _cached_attention(call: _Call) -> Work:
    """The same, over the keys of the cache and those of the new tokens."""
    query, past = call.shapes["q"], call.shapes["past_k"][-2]
    keys = past + query[-2]
    return Work(math.prod(query[:-1]) * keys * (query[-1] + call.result[-1]))


@_row(*RECURRENT)
def _recurrent(call: _Call) -> Work:
    """Every step of every row is multiplied by all weights."""
    steps = math.prod(next(iter(call.shapes.values()))[:-1])
    return Work(steps * sum(math.prod(shape) for shape in call.values["params"]))


@_row(grouped_matmul)
def _grouped(call: _Call) -> Work:
    return Work(call.elements * call.shapes["input"][-1])


@_row(aten.cdist.default, aten._cdist_forward.default)
def _distances(call: _Call) -> Work:
    return Work(call.elements * call.shapes["x1"][-1])


@_row(aten.einsum.default)
def _einsum(call: _Call) -> Work:
    """Every combination of the indices; those of an ellipsis stand in the result."""
    terms, arrow, result = call.values["equation"].replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms.split(","), call.values["tensors"]):
        before, _, after = term.partition("...")
        sizes |= zip(before, shape)
        sizes |= zip(reversed(after), reversed(shape))
    kept = result if arrow else [index for index in sizes if terms.count(index) == 1]
    return Work(call.elements * math.prod(n for index, n in sizes.items() if index not in kept))


def _decomposition(call: _Call) -> Work:
    """Linear algebra of n × n matrices takes about n³ steps."""
    given = max(call.shapes.values(), key=math.prod, default=())
    return Work(math.prod(given) * (given[-1] if given else 1))
