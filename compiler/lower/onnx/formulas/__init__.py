"""Formulas in plain torch for operators that torch does not decompose, one family a file.

They are traced at the sizes of the program, dynamic ones included, so a formula must not branch on
a size. Tests compare it with the operator itself in eager torch.
"""

from __future__ import annotations

from strop.compiler.lower.onnx.formulas import (
    airy,
    bessel,
    bits,
    cholesky,
    distance,
    double,
    elementwise,
    elimination,
    exponential,
    gamma,
    incomplete_gamma,
    indefinite,
    integer,
    inverse,
    least_squares,
    modified_bessel,
    normal,
    order,
    polynomials,
    pooling,
    reflections,
    resize,
    scatter,
    search,
    segments,
    singular,
    symmetric,
    triangular,
    zeta,
)
from strop.compiler.lower.onnx.formulas.registry import FORMULAS

__all__ = [
    "FORMULAS",
    "airy",
    "bessel",
    "bits",
    "cholesky",
    "distance",
    "double",
    "elementwise",
    "elimination",
    "exponential",
    "gamma",
    "incomplete_gamma",
    "indefinite",
    "integer",
    "inverse",
    "least_squares",
    "modified_bessel",
    "normal",
    "order",
    "polynomials",
    "pooling",
    "reflections",
    "resize",
    "scatter",
    "search",
    "segments",
    "singular",
    "symmetric",
    "triangular",
    "zeta",
]
