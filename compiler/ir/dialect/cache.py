"""What a decoder computes from its attention mask, and attention over a cache of keys and values.

An attention mask, [batch, total] of whole numbers, says of each place whether it holds a real token
(not 0) or padding (0); places of the cache come first, then those of this call. Padding may stand
on either side. Places are counted in the buffer, positions among the real tokens of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.dialect.registry import define


@define("cache_positions(Tensor mask, SymInt seq) -> Tensor")
def cache_positions(mask: Tensor, seq: int) -> Tensor:
    """The position of each new token among the real tokens of its row, from 0; padding takes 0.

    mask: [batch, total] int; seq: how many of the places are new, the last ones; result: [batch,
    seq] int64.
    """
    positions = (mask.ne(0).cumsum(1) - 1).clamp(min=0)
    return positions[:, mask.shape[1] - seq :]


@define("cache_mask(Tensor mask, SymInt seq, int? window) -> Tensor")
def cache_mask(mask: Tensor, seq: int, window: int | None) -> Tensor:
    """Which places each new token sees: real ones up to its own; padding sees those of padding too.

    mask: [batch, total] int; seq: how many of the places are new, the last ones; window: of the
    places up to its own a token sees so many, its own among them; None for all. Result: bool
    [batch, 1, seq, total], true somewhere in every row: what is hidden is then hidden alike by
    -inf and by a large number.
    """
    total = mask.shape[1]
    real = mask.ne(0)
    places = torch.arange(total, device=mask.device)
    new = places[total - seq :, None]
    seen = places <= new
    if window is not None:
        seen = seen & (places > new - window)
    shown = real[:, None, :] | ~real[:, total - seq :, None]
    return (seen & shown)[:, None]


@define("last_token(Tensor x, Tensor mask) -> Tensor")
def last_token(x: Tensor, mask: Tensor) -> Tensor:
    """The last real one of the new tokens of each row; the last place where none is real.

    x: [batch, seq, size]; mask: [batch, total] int, whose last ``seq`` places are those of ``x``;
    result: [batch, 1, size].
    """
    seq = x.shape[1]
    new = mask[:, mask.shape[1] - seq :].ne(0)
    places = torch.arange(seq, device=x.device)
    # Without a real token all are -1, and the largest of them is found at the last place.
    last = torch.where(new, places, -1).flip(1).argmax(1)
    last = torch.where(new.any(1), seq - 1 - last, seq - 1)
    return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[2]))
