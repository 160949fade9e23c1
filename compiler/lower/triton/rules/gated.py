"""Gates that no product computes."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import like, rows
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.gated import gated


@lowers(torch.ops.strop.gated.default)
def _gated(on: Tracer, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    if isinstance(gate.shape[-1], torch.SymInt):
        raise NotLowered("the kernel of gates is compiled for rows of a fixed size")
    return like(on, on.launch(gated, rows(on, gate), rows(on, up), activation), gate)
