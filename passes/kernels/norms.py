"""Norms, with or without a residual sum before them."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, dtype_of

aten = torch.ops.aten
strop = torch.ops.strop

NORMS = (aten.layer_norm.default, aten.rms_norm.default)
SKIP_NORMS = (strop.skip_layer_norm.default, strop.skip_rms_norm.default)
_RMS = (aten.rms_norm.default, strop.skip_rms_norm.default)


def norm_arguments(norm: Node) -> tuple[Node, Node | None, Any, Any, float, bool]:
    """x, residual, weight, bias, eps and whether it is RMSNorm."""
    values = arguments(norm)
    x, eps = values["x" if norm.target in SKIP_NORMS else "input"], values["eps"]
    eps = torch.finfo(dtype_of(x)).eps if eps is None else eps
    return x, values.get("skip"), values["weight"], values.get("bias"), eps, norm.target in _RMS
