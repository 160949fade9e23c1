"""Singular values and eigenvalues alone: where nothing reads the vectors, their signs are free."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from strop.compiler.ir.builder import fake_mode_of
from strop.compiler.lower.onnx.decompose import trace_function
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import TABLE, lowers

aten = torch.ops.aten


@lowers(aten.linalg_svd.default, aten.svd.default)
def svd(on: Emitter, x: Any, *options: Any) -> Any:
    return _values(on, x, 1, lambda a: aten._linalg_svd.default(a, False, False)[1])


@lowers(aten.linalg_eigh.default)
def eigh(on: Emitter, x: Any, triangle: str) -> Any:
    return _values(on, x, 0, lambda a: aten._linalg_eigh.default(a, triangle, False)[0])


def _values(on: Emitter, x: Any, place: int, values: Callable[[Tensor], Tensor]) -> Any:
    """The values, in each of the operator's places: no other is read.

    Raises:
        NotLowered: another is.
    """
    read = {u.args[1] for u in on.node.users if u.target is operator.getitem}
    if read != {place} or len(read) < len({u.target for u in on.node.users}):
        raise NotLowered("its vectors are read")
    mode = fake_mode_of(on.program)
    part = trace_function(lambda a: [values(a)], [x.meta["val"]], mode, TABLE)
    on.inline(part, [on.value(x)])
    return (on.value(part.outputs[0]),) * 3
