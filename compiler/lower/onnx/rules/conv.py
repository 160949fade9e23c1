"""Convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from strop.compiler.ir.families import CONVOLUTIONS
from strop.compiler.ir.nodes import per_axis, shape_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
strop = torch.ops.strop


def _convolution(
    on: Emitter, op_type: str, x: Any, weight: Any, bias: Any, **attributes: Any
) -> Any:
    """``Conv`` or ``ConvTranspose`` of x with a batch axis or without one."""
    value, batched = _batched(on, x, _axes(weight))
    result = on.op(op_type, value, on.value(weight), on.value(bias), **attributes)
    return _unbatched(on, result, batched)


def _axes(weight: Any) -> int:
    """The number of spatial axes."""
    return len(shape_of(weight)) - 2


def _batched(on: Emitter, x: Any, count: int) -> tuple[Any, bool]:
    if len(shape_of(x)) == count + 2:
        return on.value(x), True
    return on.op("Unsqueeze", on.value(x), on.constant([0])), False


def _unbatched(on: Emitter, result: Any, batched: bool) -> Any:
    return result if batched else on.op("Squeeze", result, on.constant([0]))


@lowers(*CONVOLUTIONS, strop.padded_conv.default)
def conv(
    on: Emitter,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Any:
    count = _axes(weight)
    dilations = per_axis(dilation, count)
    return _convolution(
        on,
        "Conv",
        x,
        weight,
        bias,
        strides=per_axis(stride, count),
        pads=_pads(padding, shape_of(weight)[2:], dilations),
        dilations=dilations,
        group=groups,
    )


def _pads(padding: Any, kernel: Sequence[Any], dilations: Sequence[int]) -> list[int]:
    """The zeros before every axis, then those after each.

    Args:
        padding: "same", "valid", a number for both sides of one or every axis, or both sides
            apart, as ``strop::padded_conv`` has them.
        kernel: its sizes.
        dilations: one for each axis.
    """
    if isinstance(padding, str):
        wanted = [d * (int(k) - 1) for d, k in zip(dilations, kernel)]
        total = wanted if padding == "same" else [0] * len(kernel)
        return [t // 2 for t in total] + [t - t // 2 for t in total]
    if not isinstance(padding, int) and len(padding) == 2 * len(kernel):
        return list(padding)
    return per_axis(padding, len(kernel)) * 2


@lowers(aten.conv_transpose1d.default, aten.conv_transpose2d.input)
def conv_transpose(
    on: Emitter,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Any:
    count = _axes(weight)
    return _convolution(
        on,
        "ConvTranspose",
        x,
        weight,
        bias,
        strides=per_axis(stride, count),
        pads=per_axis(padding, count) * 2,
        output_padding=per_axis(output_padding, count),
        dilations=per_axis(dilation, count),
        group=groups,
    )


def _pool(on: Emitter, op_type: str, x: Any, kernel: Any, count: int, **attributes: Any) -> Any:
    value, batched = _batched(on, x, count)
    result = on.op(op_type, value, kernel_shape=per_axis(kernel, count), **attributes)
    return _unbatched(on, result, batched)


def _spatial_axes(on: Emitter) -> int:
    """1 for ``max_pool1d``, 2 for ``max_pool2d``."""
    return 1 if "1d" in str(on.node.target) else 2


@lowers(aten.max_pool1d.default, aten.max_pool2d.default)
def max_pool(
    on: Emitter, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> Any:
    count = _spatial_axes(on)
    return _pool(
        on,
        "MaxPool",
        x,
        kernel,
        count,
        strides=per_axis(stride or kernel, count),
        pads=per_axis(padding, count) * 2,
        dilations=per_axis(dilation, count),
        ceil_mode=int(ceil),
    )


@lowers(aten.avg_pool1d.default, aten.avg_pool2d.default)
def avg_pool(
    on: Emitter,
    x: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: bool,
    count_pad: bool,
    divisor: int | None = None,
) -> Any:
    if divisor is not None:
        raise NotLowered("avg_pool with divisor_override")
    count = _spatial_axes(on)
    return _pool(
        on,
        "AveragePool",
        x,
        kernel,
        count,
        strides=per_axis(stride or kernel, count),
        pads=per_axis(padding, count) * 2,
        ceil_mode=int(ceil),
        count_include_pad=int(count_pad),
    )


@lowers(aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool(on: Emitter, x: Any, size: list[Any]) -> Any:
    count = len(size)
    spatial = shape_of(x)[-count:]
    if all(s == 1 for s in size):
        if x.target is strop.fake_quantize.default and len(shape_of(x)) == count + 2:
            # Slower than ReduceMean in float, but the one of the two with an int8 kernel.
            return on.op("GlobalAveragePool", on.value(x))
        return on.op("ReduceMean", on.value(x), on.constant(list(range(-count, 0))), keepdims=1)
    if any(isinstance(s, torch.SymInt) for s in (*spatial, *size)) or any(
        int(s) % o for s, o in zip(spatial, size)
    ):
        raise NotLowered("windows of unequal sizes")
    kernel = [int(s) // o for s, o in zip(spatial, size)]
    return _pool(on, "AveragePool", x, kernel, count, strides=kernel)
