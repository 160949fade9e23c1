"""Rows rounded to int8, by themselves or behind a norm."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import like, rows, rows_or_none, with_axes
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.norm import norm
from strop.kernels.quantize_rows import quantize_rows

strop = torch.ops.strop


@lowers(strop.quantize_rows.default)
def _quantize_rows(on: Tracer, x: Tensor) -> tuple[Tensor, Tensor]:
    q, scale = on.launch(quantize_rows, rows(on, x))
    return like(on, q, x), with_axes(on, scale, x.shape[:-1])


@lowers(strop.norm_int8.default)
def _norm_int8(
    on: Tracer,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    read = on.results_read()
    y, total, q, scale = on.launch(
        norm,
        rows(on, x),
        rows_or_none(on, residual),
        weight,
        bias,
        eps,
        rms=rms,
        total=residual is not None and 1 in read,
        quantize=True,
        keep=0 in read,
    )
    return (
        None if y is None else like(on, y, x),
        x if residual is None else None if total is None else like(on, total, x),
        like(on, q, x),
        with_axes(on, scale, x.shape[:-1]),
    )
