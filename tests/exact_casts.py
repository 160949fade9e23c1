"""Casts of Triton's interpreter done by torch, since its own of bfloat16 and fp8 are wrong.

It keeps those dtypes as bit patterns: its casts to them do not round to nearest, and its ``tl.dot``
multiplies the patterns of bfloat16. Within ``exact_casts`` both are right, as
``test_exact_casts.py`` shows; all other arithmetic on bfloat16 and fp8 stays wrong, so a kernel has
to cast what it loads to float32. On a GPU nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from kernel_cases import device
from triton.runtime import interpreter

_DTYPES = {
    "fp8e4nv": torch.float8_e4m3fn,
    "fp8e5": torch.float8_e5m2,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
_BITS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}


@contextmanager
def exact_casts() -> Iterator[None]:
    """Casts between floats and products of bfloat16 are exact within the block."""
    if device() == "cuda":
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(interpreter, "_convert_float", _cast)
        builder = interpreter.InterpreterBuilder
        patched.setattr(builder, "create_dot", _widening(builder.create_dot))
        yield


def _cast(values: np.ndarray, source: tl.dtype, target: tl.dtype, _rounding: Any) -> np.ndarray:
    """The bits of values in another dtype, to nearest, ties to even."""
    bits = torch.from_numpy(np.ascontiguousarray(values))
    cast = bits.view(_DTYPES[source.name]).to(_DTYPES[target.name])
    found: np.ndarray = cast.view(_BITS[cast.element_size()]).numpy()
    return found.reshape(values.shape)


def _widening(dot: Callable[..., Any]) -> Callable[..., Any]:
    """A ``create_dot`` whose bfloat16 operands are made float32 first."""

    def widened(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, _wide(a), _wide(b), *rest)

    return widened


def _wide(operand: Any) -> Any:
    if operand.dtype.scalar != tl.bfloat16:
        return operand
    bits = _cast(operand.data, tl.bfloat16, tl.float32, None)
    return interpreter.TensorHandle(bits.view(np.float32), tl.float32)
