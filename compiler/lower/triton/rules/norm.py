"""LayerNorm and RMSNorm, with a residual sum before and int8 rounding behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import like, rows
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.norm import norm

aten, strop = torch.ops.aten, torch.ops.strop


@lowers(aten.layer_norm.default)
def _layer_norm(
    on: Tracer,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    cudnn: bool,
) -> Tensor:
    _require_one_axis(shape)
    return _normed(on, x, weight, bias, eps, rms=False)


@lowers(aten.rms_norm.default)
def _rms_norm(
    on: Tracer, x: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> Tensor:
    _require_one_axis(shape)
    least = torch.finfo(x.dtype).eps if eps is None else eps
    return _normed(on, x, weight, None, least, rms=True)


@lowers(strop.skip_layer_norm.default)
def _skip_layer_norm(
    on: Tracer, x: Tensor, skip: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor | None]:
    return _summed(on, x, skip, weight, bias, eps, rms=False)


@lowers(strop.skip_rms_norm.default)
def _skip_rms_norm(
    on: Tracer, x: Tensor, skip: Tensor, weight: Tensor | None, eps: float
) -> tuple[Tensor, Tensor | None]:
    return _summed(on, x, skip, weight, None, eps, rms=True)


def _require_one_axis(shape: Sequence[int]) -> None:
    if len(shape) != 1:
        raise NotLowered(f"the norm kernel takes rows, and this normalizes over {len(shape)} axes")


def _normed(
    on: Tracer,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    rms: bool,
) -> Tensor:
    y, *_ = on.launch(norm, rows(on, x), None, weight, bias, eps, rms=rms)
    return like(on, y, x)


def _summed(
    on: Tracer,
    x: Tensor,
    skip: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    rms: bool,
) -> tuple[Tensor, Tensor | None]:
    wanted = 1 in on.results_read()
    y, total, *_ = on.launch(
        norm, rows(on, x), rows(on, skip), weight, bias, eps, rms=rms, total=wanted
    )
    return like(on, y, x), like(on, total, x) if wanted else None
