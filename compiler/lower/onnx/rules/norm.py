"""Norms, alone and after a residual sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.emitter import MICROSOFT, Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
strop = torch.ops.strop


def _ones(on: Emitter, x: Any, width: int) -> Any:
    sizes = list(shape_of(x)[len(shape_of(x)) - width :])
    if any(isinstance(s, torch.SymInt) for s in sizes):
        return on.op("Expand", on.constant(1.0, dtype_of(x)), on.shape(sizes))
    return on.constant(torch.ones(sizes).numpy(), dtype_of(x))


@lowers(aten.layer_norm.default)
def layer_norm(
    on: Emitter, x: Any, shape: list[int], weight: Any, bias: Any, eps: float, _: bool
) -> Any:
    scale = on.value(weight) if weight is not None else _ones(on, x, len(shape))
    return on.op(
        "LayerNormalization", on.value(x), scale, on.value(bias), axis=-len(shape), epsilon=eps
    )


@lowers(aten.rms_norm.default)
def rms_norm(on: Emitter, x: Any, shape: list[int], weight: Any, eps: float | None) -> Any:
    scale = on.value(weight) if weight is not None else _ones(on, x, len(shape))
    eps = torch.finfo(dtype_of(x)).eps if eps is None else eps
    return on.op("RMSNormalization", on.value(x), scale, axis=-len(shape), epsilon=eps)


@lowers(strop.skip_layer_norm.default, variant="sum")
def skip_layer_norm(on: Emitter, *arguments: Any) -> Any:
    """``Sum`` rather than ``Add``: ONNX Runtime would fuse ``Add`` into the slower contrib op."""
    return _norm_of_total(on, "Sum", *arguments)


@lowers(strop.skip_layer_norm.default, variant="add")
def skip_layer_norm_add(on: Emitter, *arguments: Any) -> Any:
    return _norm_of_total(on, "Add", *arguments)


def _norm_of_total(
    on: Emitter, op_type: str, x: Any, skip: Any, weight: Any, bias: Any, eps: float
) -> Any:
    total = on.op(op_type, on.value(x), on.value(skip))
    scale = on.value(weight) if weight is not None else _ones(on, x, 1)
    normed = on.op("LayerNormalization", total, scale, on.value(bias), axis=-1, epsilon=eps)
    return normed, total


@lowers(strop.skip_layer_norm.default, variant="contrib")
def skip_layer_norm_contrib(
    on: Emitter, x: Any, skip: Any, weight: Any, bias: Any, eps: float
) -> Any:
    if not _is_sequence(x):
        return skip_layer_norm_add(on, x, skip, weight, bias, eps)
    scale = on.value(weight) if weight is not None else _ones(on, x, 1)
    result = on.op(
        "SkipLayerNormalization",
        on.value(x),
        on.value(skip),
        scale,
        on.value(bias),
        domain=MICROSOFT,
        epsilon=eps,
        outputs=4,
    )
    return _norm_and_total(result)


def _is_sequence(x: Any) -> bool:
    """Whether a value has as many axes as the runtime's own norms take."""
    return len(shape_of(x)) in (2, 3)


def _norm_and_total(results: Any) -> Any:
    """The first and the last of four results; kernels make no others unless they are named."""
    norm, mean, deviation, total = results
    for unused in (mean, deviation):
        if isinstance(unused, ir.Value):
            unused.name = ""
    return norm, total


@lowers(strop.skip_rms_norm.default, variant="sum")
def skip_rms_norm(on: Emitter, x: Any, skip: Any, weight: Any, eps: float) -> Any:
    total = on.op("Sum", on.value(x), on.value(skip))
    scale = on.value(weight) if weight is not None else _ones(on, x, 1)
    return on.op("RMSNormalization", total, scale, axis=-1, epsilon=eps), total


@lowers(strop.skip_rms_norm.default, variant="contrib")
def skip_rms_norm_contrib(on: Emitter, x: Any, skip: Any, weight: Any, eps: float) -> Any:
    if not _is_sequence(x):
        return skip_rms_norm(on, x, skip, weight, eps)
    result = on.op(
        "SkipSimplifiedLayerNormalization",
        on.value(x),
        on.value(skip),
        on.value(weight) if weight is not None else _ones(on, x, 1),
        domain=MICROSOFT,
        epsilon=eps,
        outputs=4,
    )
    return _norm_and_total(result)


def _normalize(
    on: Emitter, op_type: str, x: Any, weight: Any, bias: Any, *statistics: Any, **attributes: Any
) -> Any:
    """A norm over channels; ONNX wants scale and bias given."""
    channels = shape_of(x)[1]
    if isinstance(channels, torch.SymInt):
        raise NotLowered("the number of channels is dynamic")
    one = on.constant(torch.ones(channels).numpy(), dtype_of(x))
    zero = on.constant(torch.zeros(channels).numpy(), dtype_of(x))
    return on.op(
        op_type,
        on.value(x),
        one if weight is None else on.value(weight),
        zero if bias is None else on.value(bias),
        *(on.value(s) for s in statistics),
        **attributes,
    )


@lowers(aten.group_norm.default)
def group_norm(
    on: Emitter, x: Any, groups: int, weight: Any, bias: Any, eps: float, _: bool
) -> Any:
    return _normalize(on, "GroupNormalization", x, weight, bias, epsilon=eps, num_groups=groups)


@lowers(aten.instance_norm.default)
def instance_norm(
    on: Emitter, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> Any:
    use_input, _, eps = rest[:3]
    if not use_input:
        return _normalize(on, "BatchNormalization", x, weight, bias, mean, var, epsilon=eps)
    return _normalize(on, "InstanceNormalization", x, weight, bias, epsilon=eps)


@lowers(aten.batch_norm.default)
def batch_norm(
    on: Emitter,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    training: bool,
    momentum: float,
    eps: float,
    _: bool,
) -> Any:
    if training:
        raise NotLowered("batch norm by the statistics of the batch; set track_running_stats")
    return _normalize(on, "BatchNormalization", x, weight, bias, mean, var, epsilon=eps)


@lowers(aten._native_batch_norm_legit_no_training.default)
def native_batch_norm(
    on: Emitter, x: Any, weight: Any, bias: Any, mean: Any, var: Any, _: float, eps: float
) -> Any:
    result = _normalize(on, "BatchNormalization", x, weight, bias, mean, var, epsilon=eps)
    nothing = on.constant(np.zeros(0), dtype_of(x))
    return result, nothing, nothing
