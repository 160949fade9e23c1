"""Tensors as kernels take and give them: rows, flat, or heads, instead of batches and sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.triton.memory import has_unit_stride
from strop.compiler.lower.triton.tracer import Tracer

aten = torch.ops.aten


def dense(on: Tracer, x: Tensor) -> Tensor:
    """A tensor whose elements in the last axis are neighbours: itself, or a copy."""
    if has_unit_stride(x):
        return x
    copy: Tensor = on.call(aten.clone.default, x, memory_format=torch.contiguous_format)
    return copy


def rows(on: Tracer, x: Tensor) -> Tensor:
    """[..., size] as [rows, size] whose elements in a row are neighbours."""
    made: Tensor = on.call(aten.reshape.default, dense(on, x), [-1, x.shape[-1]])
    return made


def rows_or_none(on: Tracer, x: Tensor | None) -> Tensor | None:
    """``rows`` of an optional tensor."""
    return None if x is None else rows(on, x)


def flat(on: Tracer, x: Tensor) -> Tensor:
    """All elements along one axis."""
    made: Tensor = on.call(aten.reshape.default, x, [-1])
    return made


def split_heads(on: Tracer, x: Tensor, heads: int) -> Tensor:
    """[batch, seq, heads*size] as [batch, heads, seq, size]."""
    given = dense(on, x)
    batch, seq, columns = given.shape
    split = on.call(aten.reshape.default, given, [batch, seq, heads, columns // heads])
    moved: Tensor = on.call(aten.transpose.int, split, 1, 2)
    return moved


def all_heads(
    on: Tracer, q: Tensor, k: Tensor, v: Tensor, q_heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, packed or split, as [batch, heads, seq, size]."""
    if q.dim() == 3:
        return (
            split_heads(on, q, q_heads),
            split_heads(on, k, kv_heads),
            split_heads(on, v, kv_heads),
        )
    return dense(on, q), dense(on, k), dense(on, v)


def like(on: Tracer, made: Tensor, x: Tensor) -> Tensor:
    """Rows that a kernel made, [rows, columns], as [..., columns] with the axes of x."""
    return with_axes(on, made, x.shape[:-1])


def with_axes(on: Tracer, made: Tensor, axes: Sequence[int]) -> Tensor:
    """What a kernel made by rows, [rows, ...], with the rows as several axes."""
    shaped: Tensor = on.call(aten.view.default, made, [*axes, *made.shape[1:]])
    return shaped
