"""Layers whose weights can be stored as something smaller."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.constants import is_weight_expression, weight_names
from strop.compiler.ir.nodes import arguments, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.passes.quantize.selection import Selection

aten = torch.ops.aten


def linear_layer(root: Node, program: Program, selection: Selection) -> dict[str, Any] | Miss:
    """The arguments of a linear layer on a constant matrix of the model's, by name.

    Args:
        root: a call of ``aten.linear``.
        program: that it is in.
        selection: which layers are wanted.
    """
    found = weighted_layer(root, program, selection)
    if not isinstance(found, Miss) and len(shape_of(found["weight"])) != 2:
        return Miss("the weight is not a matrix", root, NEAR)
    return found


def weighted_layer(root: Node, program: Program, selection: Selection) -> dict[str, Any] | Miss:
    """The arguments of a linear layer or a convolution on a constant weight of the model's.

    Args:
        root: a call with an argument ``weight``.
        program: that it is in.
        selection: which layers are wanted.
    """
    values = arguments(root)
    weight = values["weight"]
    if not is_weight_expression(weight):
        return Miss("the weight is computed from an input", root, NEAR)
    names = weight_names(weight)
    if not any(program.origins[name].sources for name in names):
        return Miss("the weight is a constant of the compiler's, not of the model's", root, NEAR)
    reason = selection.why_not(names)
    return Miss(reason, root, NEAR) if reason else values
