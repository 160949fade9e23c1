"""The methods that choose the whole numbers of a weight, and the grids that they count in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from strop.passes.quantize.methods.adaround import adaround
from strop.passes.quantize.methods.awq import awq
from strop.passes.quantize.methods.gptq import gptq
from strop.passes.quantize.methods.hqq import hqq
from strop.passes.quantize.methods.layer import Chosen, Layer, Settings
from strop.passes.quantize.methods.moments import Moments
from strop.passes.quantize.methods.nearest import nearest
from strop.passes.quantize.methods.squared_error import squared_error

MethodName = Literal["nearest", "mse", "hqq", "gptq", "awq", "adaround"]
Method = Callable[[Layer, Settings], Chosen]
METHODS: dict[MethodName, Method] = {
    "nearest": nearest,
    "mse": squared_error,
    "hqq": hqq,
    "gptq": gptq,
    "awq": awq,
    "adaround": adaround,
}
WITH_DATA: frozenset[MethodName] = frozenset({"gptq", "awq", "adaround"})
"""Those that look at what layers are multiplied with."""

__all__ = [
    "METHODS",
    "WITH_DATA",
    "Chosen",
    "Layer",
    "Method",
    "MethodName",
    "Moments",
    "Settings",
]
