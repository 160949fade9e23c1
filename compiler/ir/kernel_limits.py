"""Which calls Triton kernels run, and why they leave others to torch.

The pass that selects kernels says it to the user, and the lowering follows it. The limits are those
of the kernels (``strop.kernels.limits``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, dtype_of, expression, shape_of, static_int
from strop.compiler.targets.target import Target
from strop.kernels.limits import WIDEST_ROW, largest_head

aten = torch.ops.aten
strop = torch.ops.strop

Check = Callable[[dict[str, Any]], str | None]
_CHECKS: dict[Any, Check] = {}


def _check(*targets: Any) -> Callable[[Check], Check]:
    def enter(check: Check) -> Check:
        _CHECKS.update(dict.fromkeys(targets, check))
        return check

    return enter


KERNEL_CALLS = (
    strop.embedding_norm.default,
    strop.fused_linear.default,
    strop.gated_linear.default,
    strop.gated_linear_int8.default,
    strop.linear_int8.default,
    strop.norm_int8.default,
    strop.packed_linear.default,
    strop.quantize_rows.default,
    strop.quantize_rows_fp8.default,
    strop.scaled_linear_fp8.default,
)
"""Operators that were put into a program because a kernel runs them."""


def why_no_kernel(node: Node, target: Target) -> str | None:
    """Why torch runs a call on a target, in words; None where a kernel does."""
    if node.target in KERNEL_CALLS:
        return None
    if node.target not in _CHECKS:
        return "no kernel computes it"
    values = arguments(node)
    dtype = dtype_of(next(iter(values.values())))
    if not target.fuses(dtype):
        return f"{target.name} has no kernel for {dtype}"
    return _CHECKS[node.target](values)


def limited_calls() -> tuple[Any, ...]:
    """The operators of which some calls stay with torch, for a reason of their own."""
    return tuple(_CHECKS)


def runs_in_kernel(node: Node, target: Target) -> bool:
    """Whether a kernel runs a call on a target."""
    return why_no_kernel(node, target) is None


def why_not_row(columns: int | torch.SymInt) -> str | None:
    """Why no program of a kernel can hold a row of so many numbers for its norm."""
    size = static_int(columns)
    if size is not None and size > WIDEST_ROW:
        return f"a row has {size} numbers, and a kernel holds {WIDEST_ROW} at most"
    return _why_not_columns(columns)


def _why_not_columns(columns: int | torch.SymInt) -> str | None:
    if static_int(columns) is None:
        return f"the size of a row, {expression(columns)}, is dynamic"
    return None


@_check(aten.layer_norm.default, aten.rms_norm.default)
def _norm(values: dict[str, Any]) -> str | None:
    if len(values["normalized_shape"]) != 1:
        return "the norm is over several axes"
    return why_not_row(shape_of(values["input"])[-1])


@_check(strop.skip_layer_norm.default, strop.skip_rms_norm.default)
def _skip_norm(values: dict[str, Any]) -> str | None:
    return why_not_row(shape_of(values["x"])[-1])


@_check(aten.softmax.int)
def _softmax(values: dict[str, Any]) -> str | None:
    x, axis = values["self"], values["dim"]
    if axis not in (-1, len(shape_of(x)) - 1):
        return "the softmax is not over the last axis"
    if values["dtype"] not in (None, dtype_of(x)):
        return f"the softmax gives {values['dtype']}"
    return _why_not_columns(shape_of(x)[-1])


@_check(aten.embedding.default)
def _embedding(values: dict[str, Any]) -> str | None:
    return why_not_row(shape_of(values["weight"])[-1])


@_check(strop.gated.default)
def _gated(values: dict[str, Any]) -> str | None:
    return _why_not_columns(shape_of(values["gate"])[-1])


@_check(strop.attention.default)
def _attention(values: dict[str, Any]) -> str | None:
    q, k, v = values["q"], values["k"], values["v"]
    sizes = [_head_size(x, h) for x, h in zip((q, k, v), _heads(values))]
    if len(set(sizes)) > 1:
        return f"heads of queries, keys and values have {', '.join(map(str, sizes))} channels"
    if values["scale"] <= 0:
        return f"scores are multiplied by {values['scale']}, and a kernel takes numbers above 0"
    return _why_not_head(sizes[0], dtype_of(q))


@_check(strop.cached_attention.default)
def _cached_attention(values: dict[str, Any]) -> str | None:
    if values["k_scale"] is not None:
        return "its caches are in int8 with a scale for each channel, and kernels continue floats"
    if dtype_of(values["past_k"]) != dtype_of(values["q"]):
        return f"its caches are in {dtype_of(values['past_k'])}, and queries in another dtype"
    return _attention(values)


def _why_not_head(size: int | None, dtype: torch.dtype) -> str | None:
    most = largest_head(dtype.itemsize)
    if size is None:
        return "the size of a head is dynamic"
    if size > most:
        return f"heads have {size} channels of {dtype}, and a kernel takes {most} at most"
    return None


@_check(strop.linear_w8a8.default)
def _one_scale(values: dict[str, Any]) -> str | None:
    return "its activations have one scale for all rows; kernels take one for each (scales=row)"


def _heads(values: dict[str, Any]) -> tuple[int, int, int]:
    return values["q_heads"], values["kv_heads"], values["kv_heads"]


def _head_size(x: Node, heads: int) -> int | None:
    """Channels of a head, of packed or split heads."""
    size = static_int(shape_of(x)[-1])
    packed = len(shape_of(x)) == 3
    return size // heads if packed and size is not None else size


@_check(strop.rotary.default)
def _rotary(values: dict[str, Any]) -> str | None:
    size = _head_size(values["x"], values["heads"])
    half = static_int(shape_of(values["cos"])[-1])
    return _why_not_head(None if half is None else size, dtype_of(values["x"]))
