"""Arrays that do not fit the contract are named, with what is wanted."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from strop.compiler.artifact.feeds import NUMPY_DTYPES, require_inputs
from strop.compiler.ir.contract import DTYPE_NAMES
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError

SPECS = [
    {"name": "ids", "dtype": "i64", "shape": ["batch", "seq"]},
    {"name": "past", "dtype": "f32", "shape": ["batch", 2, "past", 8]},
]
IDS, PAST = np.zeros((1, 3), np.int64), np.zeros((1, 2, 0, 8), np.float32)


def test_arrays_of_any_size_in_named_dims_are_taken() -> None:
    require_inputs({"ids": IDS, "past": PAST}, SPECS)
    require_inputs({"past": np.zeros((4, 2, 99, 8), np.float32), "ids": IDS}, SPECS)


@pytest.mark.parametrize(
    "past, what",
    [
        (PAST.astype(np.float16), "'past' is float16 [1, 2, 0, 8]; the model takes float32 [batch"),
        (np.zeros((1, 3, 0, 8), np.float32), "is float32 [1, 3, 0, 8]; the model takes float32"),
        (np.zeros((1, 2, 0, 9), np.float32), "takes float32 [batch, 2, past, 8]"),
        (np.zeros((1, 2, 8), np.float32), "'past' is float32 [1, 2, 8]"),
        (torch.zeros(1, 2, 0, 8), "'past' is Tensor; give an array of NumPy"),
    ],
)
def test_another_shape_or_dtype_is_told(past, what) -> None:
    with pytest.raises(UsageError, match=re.escape(what)):
        require_inputs({"ids": IDS, "past": past}, SPECS)


def test_missing_and_unknown_inputs_are_told() -> None:
    with pytest.raises(UsageError, match="the model takes ids, past; got nothing"):
        require_inputs({}, SPECS)
    with pytest.raises(UsageError, match="the model takes ids, past; got ids, past, x"):
        require_inputs({"ids": IDS, "past": PAST, "x": IDS}, SPECS)


def test_every_dtype_of_contracts_is_known_as_runtimes_take_it() -> None:
    for dtype, name in DTYPE_NAMES.items():
        assert to_array(torch.zeros(1, dtype=dtype)).dtype == NUMPY_DTYPES[name]
