"""Arrays that a caller gives, held against the contract in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array

# The dtypes of contracts, as runtimes take them; bfloat16, which NumPy lacks, as float32.
NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.float32),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
    "c64": np.dtype(np.complex64),
}


def require_inputs(arrays: Mapping[str, Array], specs: Sequence[Mapping[str, Any]]) -> None:
    """Check that arrays are the inputs of a contract, of its dtypes and fixed sizes.

    Raises:
        UsageError: an input is missing or unknown, or is not like its entry in the contract.
    """
    declared = {spec["name"]: spec for spec in specs}
    if set(arrays) != set(declared):
        raise UsageError(
            f"the model takes {', '.join(declared)}; got {', '.join(arrays) or 'nothing'}"
        )
    for name, array in arrays.items():
        _require_like(name, array, declared[name])


def _require_like(name: str, array: Array, spec: Mapping[str, Any]) -> None:
    if not isinstance(array, np.ndarray):
        raise UsageError(f"'{name}' is {type(array).__name__}; give an array of NumPy")
    shape, wanted = spec["shape"], NUMPY_DTYPES.get(spec["dtype"])
    fits = array.ndim == len(shape) and all(
        isinstance(size, str) or size == given for size, given in zip(shape, array.shape)
    )
    if not fits or (wanted is not None and array.dtype != wanted):
        raise UsageError(
            f"'{name}' is {array.dtype} [{_sizes(array.shape)}]; the model takes "
            f"{wanted or spec['dtype']} [{_sizes(shape)}]"
        )


def _sizes(shape: Sequence[int | str]) -> str:
    return ", ".join(map(str, shape))
