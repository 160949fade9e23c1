"""Every kernel, by name."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from strop.kernels.kernel import Kernel

# The module of each, and what it is called there.
_PLACES = {
    "attention": "attention:ATTENTION",
    "decode_attention": "decode_attention:DECODE_ATTENTION",
    "embedding_norm": "embedding_norm:EMBEDDING_NORM",
    "gated": "gated:GATED",
    "gated_gemm": "gemm:GATED_GEMM",
    "gated_gemm_int8": "gemm_int8:GATED_GEMM_INT8",
    "gemm": "gemm:GEMM",
    "gemm_fp8": "gemm_fp8:GEMM_FP8",
    "gemm_int8": "gemm_int8:GEMM_INT8",
    "gemm_packed": "gemm_packed:GEMM_PACKED",
    "gemv_packed": "gemv_packed:GEMV_PACKED",
    "gemv_packed_sum": "gemv_packed:GEMV_PACKED_SUM",
    "merge_splits": "decode_attention:MERGE_SPLITS",
    "norm": "norm:NORM",
    "quantize_rows": "quantize_rows:QUANTIZE_ROWS",
    "quantize_rows_fp8": "gemm_fp8:QUANTIZE_ROWS_FP8",
    "rotary": "rotary:ROTARY",
    "rotary_cache": "rotary_cache:ROTARY_CACHE",
    "softmax": "softmax:SOFTMAX",
}


def names() -> list[str]:
    """Of all kernels, in order."""
    return sorted(_PLACES)


def module_of(name: str) -> str:
    """The module of this package that a kernel is in.

    Raises:
        KeyError: there is no such kernel.
    """
    return _PLACES[name].partition(":")[0]


@cache
def kernel(name: str) -> Kernel:
    """A kernel by name; Triton is loaded only now.

    Raises:
        KeyError: there is no such kernel.
    """
    module, attribute = module_of(name), _PLACES[name].partition(":")[2]
    found: Kernel = getattr(import_module(f"strop.kernels.{module}"), attribute)
    return found
