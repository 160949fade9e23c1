"""Torch's type promotion, of which ONNX has none."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.emitter import Emitter


def promoted(on: Emitter, *arguments: Any, dtype: torch.dtype | None = None) -> list[Any]:
    """The arguments as values of the result's dtype (or a given one)."""
    dtype = dtype or dtype_of(on.node)
    return [on.operand(a, dtype) for a in arguments]


def common_dtype(*arguments: Any) -> torch.dtype:
    """The dtype in which torch compares or combines the arguments."""
    values = [a.meta["val"] if isinstance(a, Node) else a for a in arguments]
    sizes = {torch.SymInt: 1, torch.SymFloat: 1.0, torch.SymBool: True}
    plain = [sizes.get(type(v), v) for v in values]
    return torch.result_type(*plain)  # numbers are welcome too
