"""Masks of ``nn.Transformer`` are used as they are given, without a look at their values.

Where its caller does not say whether a mask is causal, torch compares it with one that is, only to
tell attention that it may take a faster way. The mask is applied in both cases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor
from torch.nn.modules import transformer


@contextlib.contextmanager
def masks_as_given() -> Iterator[None]:
    """While this holds, a mask is causal only where the caller says so."""
    detect = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = _said
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = detect


def _said(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    return is_causal is True
