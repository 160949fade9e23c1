"""Functions that Triton's interpreter lacks, by others that it has."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rsqrt(x):  # type: ignore[no-untyped-def]
    """1 / sqrt(x), which libdevice has in compiled kernels."""
    return tl.rsqrt(x)
