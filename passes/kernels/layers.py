"""Linear layers as kernels compute them, with what they do behind the product."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.dialect.attention import HALVES
from strop.compiler.ir.nodes import arguments, dtype_of, shape_of
from strop.compiler.targets.target import Target

aten = torch.ops.aten
strop = torch.ops.strop

LAYERS = (
    strop.fused_linear.default,
    strop.linear_int8.default,
    strop.packed_linear.default,
    strop.scaled_linear_fp8.default,
)
ACTIVATIONS = (aten.gelu.default, aten.relu.default, aten.silu.default)


@dataclass(frozen=True)
class Layer:
    """A call of a kernel for a linear layer, as it is or as it would be.

    Attributes:
        node: that gives its result now.
        target: the operator that kernels run.
        values: its arguments by name.
    """

    node: Node
    target: Any
    values: Mapping[str, Any]

    @property
    def is_plain(self) -> bool:
        """Whether nothing but a bias is behind the product yet."""
        return self.values["activation"] == "none" and self.values["residual"] is None

    def having(self, **changes: Any) -> Layer:
        """The same with other arguments."""
        return replace(self, values={**self.values, **changes})

    def call(self, build: Builder) -> Node:
        """Put the call into a program."""
        return build.call(self.target, *self.values.values())


def why_not_dense(linear: Node, target: Target) -> str | None:
    """Why no kernel takes a linear layer in float."""
    values = arguments(linear)
    dtype, weight = dtype_of(values["input"]), values["weight"]
    if dtype not in HALVES:
        return f"kernels multiply floats of 16 bits, not {dtype}"
    if not target.fuses(dtype):
        return f"{target.name} has no kernel for {dtype}"
    if len(shape_of(weight)) != 2:
        return "the weight is not a matrix"
    if any(isinstance(size, torch.SymInt) for size in shape_of(weight)):
        return "the size of the weight is dynamic"
    return None


def dense_layer(linear: Node) -> Layer:
    """A call of ``aten.linear`` as kernels compute it."""
    values = arguments(linear)
    x, weight, bias = values["input"], values["weight"], values["bias"]
    given = {"x": x, "weight": weight, "bias": bias, "residual": None, "activation": "none"}
    return Layer(linear, strop.fused_linear.default, given)


def layer_of(value: Any, target: Target, dense: bool) -> Layer | None:
    """The layer that gives a value and that a kernel computes, or could compute.

    Args:
        value: of the graph.
        target: where the program will run.
        dense: whether linear layers in float count.
    """
    if not isinstance(value, Node):
        return None
    if value.target in LAYERS:
        return Layer(value, value.target, arguments(value))
    if dense and value.target is aten.linear.default and why_not_dense(value, target) is None:
        return dense_layer(value)
    return None


def activation_name(call: Node) -> str:
    """What kernels call the activation of a call of one of ``ACTIVATIONS``."""
    if call.target is aten.gelu.default:
        return "gelu_tanh" if arguments(call)["approximate"] == "tanh" else "gelu"
    return "relu" if call.target is aten.relu.default else "silu"


def shared(build: Builder, target: Any, *args: Any) -> Node:
    """A call that may be there already, for another layer."""
    nodes = [a for a in args if isinstance(a, Node)]
    for user in nodes[0].users:
        if user.target is target and user.args == args and user < build.before:
            return user
    return build.call(target, *args)


def float32(value: Node, build: Builder) -> Node:
    """A value in float32: itself, or a cast."""
    if dtype_of(value) == torch.float32:
        return value
    return shared(build, aten.to.dtype, value, torch.float32)


def quantized(x: Node, target: Any, build: Builder) -> tuple[Node, Node]:
    """The rows of a value in 8 bits, and their scales: one call for all layers that read it."""
    pair = shared(build, target, x)
    return shared(build, operator.getitem, pair, 0), shared(build, operator.getitem, pair, 1)
