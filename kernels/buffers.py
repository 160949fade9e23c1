"""Where launchers get their outputs and workspaces from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def empty(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Memory that nothing was written to, contiguous, on the device of another tensor."""
    return like.new_empty(tuple(shape), dtype=dtype)
