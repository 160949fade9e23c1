"""The operators that are measured, each with the shapes at which it is used."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir import dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.ir.builder import Builder

strop = torch.ops.strop
Shape = tuple[int, ...]
# Channels of a head, for rotary embedding.
HEAD = 64
# Input channels that share a scale, of weights of 4 bits.
GROUP = 32


@dataclass(frozen=True)
class Subject:
    """One operator to measure.

    Attributes:
        target: the operator.
        inputs: shapes of the graph's inputs at (batch, seq, width).
        step: applies the operator to the current values and gives the next ones.
        widths: sizes of the last axis.
    """

    target: Any
    inputs: Callable[[int, int, int], list[Shape]]
    step: Callable[[Builder, list[Node]], list[Node]]
    widths: tuple[int, ...]


def _pair(batch: int, seq: int, width: int) -> list[Shape]:
    return [(batch, seq, width), (batch, seq, width)]


def _one(batch: int, seq: int, width: int) -> list[Shape]:
    return [(batch, seq, width)]


def _with_angles(batch: int, seq: int, width: int) -> list[Shape]:
    return [(batch, seq, width), (1, seq, HEAD // 2), (1, seq, HEAD // 2)]


def _width(value: Node) -> int:
    return int(value.meta["val"].shape[-1])


def _vector(build: Builder, name: str, like: Node) -> Node:
    return build.weight(name, torch.linspace(0.9, 1.1, _width(like)), ())


def _skip_layer_norm(build: Builder, values: list[Node]) -> list[Node]:
    x, skip = values
    weight, bias = _vector(build, "weight", x), _vector(build, "bias", x)
    both = build.call(strop.skip_layer_norm.default, x, skip, weight, bias, 1e-5)
    return [build.call(operator.getitem, both, 0), skip]


def _skip_rms_norm(build: Builder, values: list[Node]) -> list[Node]:
    x, skip = values
    both = build.call(strop.skip_rms_norm.default, x, skip, _vector(build, "weight", x), 1e-5)
    return [build.call(operator.getitem, both, i) for i in (0, 1)]


def _bias_gelu(build: Builder, values: list[Node]) -> list[Node]:
    bias = _vector(build, "bias", values[0])
    return [build.call(strop.bias_gelu.default, values[0], bias, "none")]


def _gated(build: Builder, values: list[Node]) -> list[Node]:
    gate, up = values
    return [build.call(strop.gated.default, gate, up, "silu"), up]


def _rotary(build: Builder, values: list[Node]) -> list[Node]:
    x, cos, sin = values
    return [build.call(strop.rotary.default, x, cos, sin, _width(x) // HEAD), cos, sin]


def _linear_nbits(build: Builder, values: list[Node]) -> list[Node]:
    width = _width(values[0])
    weight = torch.linspace(-0.1, 0.1, width * width).reshape(width, width)
    rows = build.weight("weight", weight, ())
    scale = build.weight("scale", torch.full((width, width // GROUP), 0.1 / 7), ())
    zeros = torch.full((width, width // GROUP), 8, dtype=torch.int32)
    zero_point = build.weight("zero_point", zeros, ())
    product = strop.linear_nbits.default
    return [build.call(product, values[0], rows, scale, zero_point, None, 4)]


SUBJECTS: tuple[Subject, ...] = (
    Subject(strop.skip_layer_norm.default, _pair, _skip_layer_norm, (384, 768)),
    Subject(strop.skip_rms_norm.default, _pair, _skip_rms_norm, (512, 2048)),
    Subject(strop.bias_gelu.default, _one, _bias_gelu, (1536, 3072)),
    Subject(strop.gated.default, _pair, _gated, (1408, 5632)),
    Subject(strop.rotary.default, _with_angles, _rotary, (512, 2048)),
    Subject(strop.linear_nbits.default, _one, _linear_nbits, (384, 1024)),
)
