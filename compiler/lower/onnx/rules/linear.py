"""Matrix products."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.emitter import MICROSOFT, Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
strop = torch.ops.strop


@lowers(aten.linear.default)
def linear(on: Emitter, x: Any, weight: Any, bias: Any) -> Any:
    """Weights stay as torch keeps them, [out, in]: a tied one stays one initializer."""
    if len(shape_of(weight)) == 1:
        product = on.op("MatMul", on.value(x), on.value(weight))
        return product if bias is None else on.op("Add", product, on.value(bias))
    if len(shape_of(x)) == 2:
        return on.op("Gemm", on.value(x), on.value(weight), on.value(bias), transB=1)
    if weight.target is strop.fake_quantize.default:
        return _gemm_of_rows(on, x, weight, bias)
    product = _product(on, x, weight)
    return product if bias is None else on.op("Add", product, on.value(bias))


def _product(on: Emitter, x: Any, weight: Any) -> Any:
    """x times the transposed weight, for x of any number of axes."""
    if not on.target.contrib:  # runtimes transpose a constant when they load it
        return on.op("MatMul", on.value(x), on.op("Transpose", on.value(weight), perm=[1, 0]))
    if not on.target.fuses(dtype_of(on.node)):
        raise NotLowered(f"the runtime has no fused product of {dtype_of(on.node)}")
    return on.op("FusedMatMul", on.value(x), on.value(weight), domain=MICROSOFT, transB=1)


def _gemm_of_rows(on: Emitter, x: Any, weight: Any, bias: Any) -> Any:
    """All rows as one matrix: the int8 form of Gemm adds the bias, that of MatMul does not."""
    rows = on.op("Reshape", on.value(x), on.constant([-1, shape_of(weight)[1]]))
    made = on.op("Gemm", rows, on.value(weight), on.value(bias), transB=1)
    return on.op("Reshape", made, on.shape(shape_of(on.node)))


def _require_int8(on: Emitter, x: Any) -> None:
    """Check that the runtime has a product of int8 activations that are float outside of it.

    Raises:
        NotLowered: it has none.
    """
    if not on.target.computes_int8 or dtype_of(x) != torch.float32:
        raise NotLowered(f"{on.target.name} has no int8 products of {dtype_of(x)} activations")


@lowers(strop.linear_w8a8.default)
def linear_w8a8(on: Emitter, x: Any, weight: Any, scale: Any, bias: Any) -> Any:
    _require_int8(on, x)
    return on.op(
        "DynamicQuantizeMatMul",
        on.value(x),
        on.int8(weight, scale, transposed=True),
        on.value(scale),
        None,
        on.value(bias),
        domain=MICROSOFT,
    )


@lowers(strop.linear_w8a8_rows.default)
def linear_w8a8_rows(on: Emitter, x: Any, weight: Any, scale: Any, bias: Any) -> Any:
    """Rows are divided by their largest value, and one scale fits all that is left.

    The zero point is fixed: products of u8 with s8 are the fast ones.
    """
    _require_int8(on, x)
    value = on.value(x)
    tops = on.op("ReduceMax", on.op("Abs", value), on.constant([-1]), keepdims=1)
    tops = on.op("Max", tops, on.constant(127 * torch.finfo(torch.float32).tiny, torch.float32))
    step, zero = on.constant(1 / 127, torch.float32), on.constant(128, torch.uint8)
    product = on.op(
        "MatMulIntegerToFloat",
        on.op("QuantizeLinear", on.op("Div", value, tops), step, zero),
        on.int8(weight, scale, transposed=True),
        step,
        on.value(scale),
        zero,
        domain=MICROSOFT,
    )
    product = on.op("Mul", product, tops)
    return product if bias is None else on.op("Add", product, on.value(bias))


@lowers(strop.stored_int8.default)
def stored_int8(on: Emitter, weight: Any, scale: Any) -> Any:
    """Cast and Mul, not DequantizeLinear: those the runtime computes once, when it loads."""
    grid = on.cast(on.int8(weight, scale), dtype_of(on.node))
    return on.op("Mul", grid, on.op("Unsqueeze", on.value(scale), on.constant([-1])))


@lowers(aten.matmul.default, aten.bmm.default, aten.mm.default)
def matmul(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("MatMul", on.value(a), on.value(b))


@lowers(aten.addmm.default, aten.baddbmm.default)
def addmm(on: Emitter, c: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Any:
    if not dtype_of(on.node).is_floating_point:
        raise NotLowered("a scaled product of integers")
    if on.node.target is aten.addmm.default:
        return on.op(
            "Gemm", on.value(a), on.value(b), on.value(c), alpha=float(alpha), beta=float(beta)
        )
    product = on.op("FusedMatMul", on.value(a), on.value(b), domain=MICROSOFT, alpha=float(alpha))
    if beta == 0:
        return product
    addend = on.value(c)
    if beta != 1:
        addend = on.op("Mul", addend, on.constant(beta, c.meta["val"].dtype))
    return on.op("Add", product, addend)


@lowers(aten.einsum.default)
def einsum(on: Emitter, equation: str, tensors: list[Any], _: Any) -> Any:
    return on.op("Einsum", *(on.value(t) for t in tensors), equation=equation)


@lowers(strop.bias_gelu.default, variant="add_gelu")
def bias_gelu(on: Emitter, x: Any, bias: Any, approximate: str) -> Any:
    total = on.op("Add", on.value(x), on.value(bias))
    return on.op("Gelu", total, approximate=approximate)


@lowers(strop.bias_gelu.default, variant="contrib")
def bias_gelu_contrib(on: Emitter, x: Any, bias: Any, approximate: str) -> Any:
    op_type = "FastGelu" if approximate == "tanh" else "BiasGelu"
    return on.op(op_type, on.value(x), on.value(bias), domain=MICROSOFT)


def _up(on: Emitter, active: Any, up: Any) -> Any:
    return on.op("Mul", active, on.value(up))


@lowers(strop.gated.default, variant="standard")
def gated(on: Emitter, gate: Any, up: Any, activation: str) -> Any:
    value = on.value(gate)
    if activation == "silu":
        return _up(on, on.op("Mul", value, on.op("Sigmoid", value)), up)
    form = "tanh" if activation == "gelu_tanh" else "none"
    return _up(on, on.op("Gelu", value, approximate=form), up)


@lowers(strop.gated.default, variant="contrib")
def gated_contrib(on: Emitter, gate: Any, up: Any, activation: str) -> Any:
    value = on.value(gate)
    if activation == "silu":
        return _up(on, on.op("QuickGelu", value, domain=MICROSOFT, alpha=1.0), up)
    op_type = "FastGelu" if activation == "gelu_tanh" else "Gelu"
    return _up(on, on.op(op_type, value, domain=MICROSOFT), up)
