"""Weights written to safetensors as a stream: one in memory at a time, whatever the size.

The library's own writer takes all tensors at once. The format is a header of JSON behind its
length, then the data, without gaps (github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strop.compiler.targets.triton.plan import DTYPES, WeightValues
from strop.compiler.util.arrays import raw_bytes

_NAMES = {
    "f16": "F16", "bf16": "BF16", "f32": "F32", "f64": "F64", "f8e4m3": "F8_E4M3", "i8": "I8",
    "u8": "U8", "i16": "I16", "i32": "I32", "i64": "I64", "bool": "BOOL",
}  # fmt: skip
_HEADER_ALIGNMENT = 8


def write_weights(
    path: Path, weights: Mapping[str, WeightValues], read: Callable[[str], Tensor]
) -> None:
    """Write weights.

    Args:
        path: of the file.
        weights: what each is, by name.
        read: gives one, when it is written.
    """
    # The widest first, so that each begins at a multiple of its elements' size.
    order = sorted(weights, key=lambda name: (-_dtype(weights[name]).itemsize, name))
    header, end = dict[str, Any](), 0
    for name in order:
        start, end = end, end + math.prod(weights[name].shape) * _dtype(weights[name]).itemsize
        header[name] = {
            "dtype": _NAMES[weights[name].dtype],
            "shape": weights[name].shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            tensor, known = read(name), weights[name]
            assert (tensor.dtype, list(tensor.shape)) == (_dtype(known), known.shape), name
            stream.write(raw_bytes(tensor))


def _dtype(weight: WeightValues) -> torch.dtype:
    return DTYPES[weight.dtype]
