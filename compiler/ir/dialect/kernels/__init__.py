"""What Triton kernels compute: operators that a program holds once a target's kernels are chosen.

Their references follow the kernels: sums in float32, one rounding at the end, int8 and packed
numbers in tensors of whole numbers. A program with them is for inference: gradients do not reach
weights that are whole numbers.
"""

from __future__ import annotations

from strop.compiler.ir.dialect.kernels import embedding, fp8, int8, linear, norm, packed

__all__ = ["embedding", "fp8", "int8", "linear", "norm", "packed"]
