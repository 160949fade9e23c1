"""The rows of the lowering table, one family a file; importing this fills it."""

from __future__ import annotations

from strop.compiler.lower.triton.rules import embedding, linear, norm, quantize, rotary, softmax

__all__ = ["embedding", "linear", "norm", "quantize", "rotary", "softmax"]
