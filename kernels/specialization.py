"""Which variant of a kernel a launch needs: types and alignment, with real or fake tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import SymInt, Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils._sympy.numbers import int_oo

from strop.kernels.kernel import Configuration, Launch
from strop.kernels.variant import ABSENT, ALIGNMENT, Variant

_LARGEST = 2**31 - 1
# Not float64: kernels compute in float32, torch does not.
_DTYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "u8",
    torch.bool: "i1",
}


def variant_of(launch: Launch, configuration: Configuration) -> Variant:
    """The variant that a launch needs; whoever runs it must hold to what it was compiled for.

    A tensor is aligned where its offset is a multiple of 16 bytes: its storage has to begin at
    one. A whole number is "i64" where it is known to exceed 31 bits, or may by the bound that is
    known for its symbol; one without a bound is "i32", so whoever fills it in must refuse a value
    that does not fit. A symbolic number is aligned where that is proven for all its values; the
    size by which a build chooses configurations (``Kernel.axis``) never is, so that one variant
    serves all its values.

    Raises:
        TypeError: an argument has a type that no kernel takes.
    """
    arguments = launch.arguments.items()
    return Variant(
        launch.kernel.name,
        tuple((name, _type(name, value)) for name, value in arguments),
        tuple(
            name for name, value in arguments if name != launch.kernel.axis and _is_aligned(value)
        ),
        tuple(sorted({**launch.constants, **configuration.constants}.items())),
        configuration.num_warps,
        configuration.num_stages,
    )


def _type(name: str, value: Any) -> str:
    match value:
        case None:
            return ABSENT
        case Tensor() if value.dtype in _DTYPES:
            return f"*{_DTYPES[value.dtype]}"
        case bool():
            raise TypeError(f"argument {name} is {value}: conditions must be constants")
        case int() | SymInt():
            return "i64" if _may_exceed(value) else "i32"
        case float():
            return "fp32"
    what = value.dtype if isinstance(value, Tensor) else type(value).__name__
    raise TypeError(f"argument {name} is of type {what}, which no kernel takes")


def _may_exceed(value: int | SymInt) -> bool:
    known = plain(value)
    if known is not None:
        return not -_LARGEST <= known <= _LARGEST
    assert isinstance(value, SymInt)
    bounds = value.node.shape_env.bound_sympy(value.node.expr)
    return bounds.upper is not int_oo and bool(bounds.upper > _LARGEST)


def plain(value: int | SymInt) -> int | None:
    """The number, where it is the same for all values of the symbols; else None."""
    return value.node.maybe_as_int() if isinstance(value, SymInt) else value


def _is_aligned(value: Any) -> bool:
    match value:
        case Tensor():
            return _is_aligned(_address(value))
        case int() | SymInt():
            return statically_known_true(value % ALIGNMENT == 0)
    return False


def _address(x: Tensor) -> int | SymInt:
    """Of a tensor without memory: relative to that of its storage."""
    if isinstance(x, FakeTensor) or x.device.type == "meta":
        return x.storage_offset() * x.element_size()
    return x.data_ptr()
