"""Whether what a file gives for a sample is what torch gives, within the tolerance of its dtype.

Torch rounds on the way, and a file may round in other places. Where the two differ, both are
compared with what torch gives in a wider dtype: a file that is as near to that as torch is right.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from strop.compiler.util.arrays import to_array

# Relative and absolute, the latter in units of the largest finite magnitude expected, if above 1.
TOLERANCES = {
    torch.float64: (1e-5, 1e-7),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (5e-3, 5e-3),
    torch.bfloat16: (4e-2, 4e-2),
}

# Where torch is off by more than this many absolute tolerances, its error excuses no other.
MOST_OFF = 4


def difference(
    got: Any, wanted: Tensor, through: torch.dtype = torch.float64, more: float = 0.0
) -> tuple[str, str] | None:
    """What differs, and how; None where nothing does beyond the tolerance of the dtype.

    ``through`` is the dtype that was computed in on the way: a float of 32 bits that comes from
    one of 16 is no more exact than that. ``more`` is allowed beside the tolerance.
    """
    want = to_array(wanted)  # a file gives bfloat16 as float32
    if got.dtype != want.dtype:
        return "another dtype", f"{got.dtype}, not {want.dtype}"
    if got.shape != want.shape:
        return "another shape", f"{got.shape}, not {want.shape}"
    if wanted.dtype not in TOLERANCES:
        wrong = got != want
        return ("other values", _example(got, want, wrong)) if wrong.any() else None
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "NaN or infinity elsewhere", _example(
            a, b, ~((a == b) | (finite & np.isfinite(a)) | (np.isnan(a) & np.isnan(b)))
        )
    exact = TOLERANCES.get(through, TOLERANCES[wanted.dtype])
    rtol, atol = max(exact, TOLERANCES[wanted.dtype])
    with np.errstate(invalid="ignore"):
        wrong = finite & ~(np.abs(a - b) <= rtol * np.abs(b) + atol * _scale(b) + more)
    return ("other values", _example(a, b, wrong)) if wrong.any() else None


def results_in_float64(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What torch gives when every float of a call, its weights too, has 64 bits.

    Raises:
        Exception: torch does not run it so: a dtype is written into the call.
    """
    wide = copy.deepcopy(module).double()
    with torch.no_grad():
        leaves = pytree.tree_leaves(
            wide(*(t.double() if t.is_floating_point() else t.clone() for t in inputs))
        )
    return [t for t in leaves if isinstance(t, Tensor)]


def as_near(got: Any, wanted: Tensor, exact: Tensor) -> bool:
    """Whether a file's values are as near to the exact ones as torch's are, within the tolerance.

    Args:
        got: what the file gives.
        wanted: what torch gives in the dtype of the sample.
        exact: the same in float64; in any other dtype nothing is known.
    """
    if wanted.dtype not in TOLERANCES or exact.dtype != torch.float64:
        return False
    rounded = exact.to(wanted.dtype)
    a, b = (to_array(t).astype(np.float64) for t in (wanted, rounded))
    both = np.isfinite(a) & np.isfinite(b)
    most = MOST_OFF * TOLERANCES[wanted.dtype][1] * _scale(b)
    off = min(float(np.abs(a[both] - b[both]).max(initial=0.0)), most)
    return difference(got, rounded, more=off) is None


def _scale(values: Any) -> float:
    """The largest finite magnitude, 1 at least."""
    return max(1.0, float(np.abs(values[np.isfinite(values)]).max(initial=0.0)))


def _example(got: Any, want: Any, wrong: Any) -> str:
    place = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.ndim else ()
    return f"{got[place]} at {place}, not {want[place]} ({int(wrong.sum())} of {wrong.size})"
