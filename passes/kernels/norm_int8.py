"""Norms whose result is rounded to int8 by the kernel that computes them."""

from __future__ import annotations

import operator

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.kernel_limits import why_no_kernel
from strop.compiler.ir.nodes import input_node
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.kernels.norms import NORMS, SKIP_NORMS, norm_arguments
from strop.passes.kernels.results import replace_results

strop = torch.ops.strop


class NormInt8(Rule):
    """``quantize_rows(norm(x))``; where the norm is read in float too, both are stored."""

    name = "norm-int8"
    roots = (strop.quantize_rows.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        norm = _norm_of(input_node(root))
        if norm is None:
            return Miss("no norm gives what is rounded", root)
        if reason := why_no_kernel(norm, self.target):
            return Miss(reason, norm, NEAR)
        return Match(root, {"norm": norm}, [root])

    def rewrite(self, match: Match, build: Builder) -> None:
        norm: Node = match["norm"]
        near = build.at(norm)
        made = near.call(strop.norm_int8.default, *norm_arguments(norm))
        y, total, q, scale = (near.call(operator.getitem, made, i) for i in range(4))
        replace_results(match.root, (q, scale), build.program)
        if norm.target in SKIP_NORMS:
            replace_results(norm, (y, total), build.program)
        else:
            norm.replace_all_uses_with(y)
            build.program.erase_dead([norm])


def _norm_of(value: Node) -> Node | None:
    """The norm whose result a value is."""
    if value.target in NORMS:
        return value
    if value.target is operator.getitem and value.args[1] == 0:
        norm = input_node(value)
        return norm if norm.target in SKIP_NORMS else None
    return None
