"""Tensors as arrays of NumPy, which is what runtimes take and give."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.util.numerics import Array

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


def as_array(value: Any) -> Array:
    """An array, a tensor or numbers as an array of NumPy."""
    return to_array(torch.as_tensor(value))


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor's elements, in order; of whatever dtype it is."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def to_array(tensor: torch.Tensor) -> Array:
    """A tensor for NumPy; one of a dtype that NumPy lacks in the next wider one, which holds it."""
    wide = tensor.to(_wider(tensor.dtype))
    array: Array = wide.detach().resolve_conj().resolve_neg().numpy()
    return array


def _wider(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself; float32 for bfloat16 and floats of 8 bits, complex64 for complex32."""
    if dtype == torch.complex32:
        return torch.complex64
    in_numpy = not dtype.is_floating_point or dtype in _NUMPY_FLOATS
    return dtype if in_numpy else torch.float32
