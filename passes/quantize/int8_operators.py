"""What operators do with values on a grid of 8 bits: which of them targets compute in int8."""

from __future__ import annotations

import math

import torch
from torch.fx.node import Node

from strop.compiler.ir.families import CONVOLUTIONS, VIEWS
from strop.compiler.ir.nodes import arguments, dtype_of, input_node, tensors_of

aten = torch.ops.aten
strop = torch.ops.strop

CONVOLUTION_LAYERS = (*CONVOLUTIONS, strop.padded_conv.default)
LAYERS = (*CONVOLUTION_LAYERS, aten.linear.default)
# Their results are some of the values of their input: they stay on its grid.
SAME_GRID = (
    *VIEWS,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.permute.default,
    aten.slice.Tensor,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.transpose.int,
    aten.unsqueeze.default,
)
JOINS = (aten.cat.default, aten.concat.default)
# Their results have ranges of their own.
OWN_GRID = (
    *JOINS,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.add.Tensor,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.leaky_relu.default,
    aten.mul.Tensor,
    aten.sigmoid.default,
)
CLAMPS = (
    aten.clamp.default,
    aten.clamp_min.default,
    aten.hardtanh.default,
    aten.relu.default,
    aten.relu6.default,
)


def reads(layer: Node) -> Node:
    """The value that a layer multiplies with its weights."""
    return input_node(layer)


def activations(node: Node) -> list[Node]:
    """The values that an operator computes with, without the weights of a layer."""
    return [reads(node)] if node.target in LAYERS else list(node.all_input_nodes)


def computes_in_int8(node: Node) -> bool:
    """Whether an operator that is no layer has a form for whole numbers."""
    if node.target not in (*SAME_GRID, *OWN_GRID, *CLAMPS):
        return False
    values = (node, *node.all_input_nodes)
    if any(not tensors_of(v) or dtype_of(v) != torch.float32 for v in values):
        return False
    if node.target in (aten.add.Tensor, aten.mul.Tensor):
        scaled = arguments(node).get("alpha", 1) != 1
        return len(node.all_input_nodes) == 2 and not scaled
    return True


def limits(clamp: Node) -> tuple[float, float]:
    """The least and the largest value that a clamp lets through."""
    if clamp.target is aten.relu.default:
        return 0.0, math.inf
    if clamp.target is aten.relu6.default:
        return 0.0, 6.0
    values = arguments(clamp)
    low = values.get("min", values.get("min_val"))
    high = values.get("max", values.get("max_val"))
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)
