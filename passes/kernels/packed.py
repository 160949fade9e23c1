"""Linear layers on weights of a few bits: unpacked by the kernel that multiplies them."""

from __future__ import annotations

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import evaluate, is_weight_expression
from strop.compiler.ir.dialect.attention import HALVES
from strop.compiler.ir.dialect.kernels.packed import kernel_bits
from strop.compiler.ir.nodes import arguments, dtype_of, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.kernels.limits import GROUP_STEP
from strop.passes.kernels.layers import shared

aten = torch.ops.aten
strop = torch.ops.strop


class PackedLinear(Rule):
    """Numbers of 2 and 3 bits are laid out in 4, those of 5 to 7 bits in 8."""

    name = "kernel-linear-packed"
    roots = (strop.linear_nbits.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arguments(root)
        dtype, weight, scale = dtype_of(values["x"]), values["weight"], values["scale"]
        if dtype not in HALVES or not self.target.fuses(dtype):
            return Miss(f"{self.target.name} multiplies floats of 16 bits, not {dtype}", root, NEAR)
        if not all(is_weight_expression(n) for n in (weight, scale)):
            return Miss("the weight is computed from an input", root, NEAR)
        groups, size = int(shape_of(scale)[1]), int(shape_of(weight)[1])
        if groups > 1 and (size // groups) % GROUP_STEP:
            reason = f"groups of {size // groups}: a kernel takes multiples of {GROUP_STEP}"
            return Miss(reason, root, NEAR)
        return Match(root, values, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        weight, scale, zero, bits = (match[n] for n in ("weight", "scale", "zero_point", "bits"))
        numbers = shared(build, strop.packed_numbers.default, weight, scale, zero, bits)
        given = (self._scale(match, build), self._zero_point(match, build), match["bias"])
        rest = (None, kernel_bits(bits), "none")
        return build.call(strop.packed_linear.default, match["x"], numbers, *given, *rest)

    def _scale(self, match: Match, build: Builder) -> Node:
        """In the dtype of the activations, if that holds all digits of every scale."""
        scale: Node = match["scale"]
        dtype = dtype_of(match["x"])
        if dtype_of(scale) == dtype:
            return scale
        numbers, limits = evaluate(scale, build.program).abs(), torch.finfo(dtype)
        if numbers.numel() and numbers.min() >= limits.tiny and numbers.max() <= limits.max:
            return shared(build, aten.to.dtype, scale, dtype)
        return scale

    def _zero_point(self, match: Match, build: Builder) -> Node | None:
        """As bytes; a number of its own where that of the kernel's bits is another."""
        zero, bits = match["zero_point"], match["bits"]
        if zero is not None:
            return shared(build, aten.to.dtype, zero, torch.uint8)
        if bits == kernel_bits(bits):
            return None
        middle = 1 << (bits - 1)
        return build.call(aten.full_like.default, match["scale"], middle, dtype=torch.uint8)
