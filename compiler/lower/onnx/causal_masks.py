"""Which masks of attention are known to hide every place that comes after a token's own."""

from __future__ import annotations

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arg


def cache_mask_in(mask: Node) -> Node | None:
    """The ``strop::cache_mask`` that a mask is; None where it is another.

    Not a float mask made of one: a row that sees nothing is then a mean over all places, also over
    those after its own, which no operator shows that hides these by itself.
    """
    if mask.target is torch.ops.strop.cache_mask.default:
        return mask
    if mask.target is torch.ops.aten.expand.default:
        return cache_mask_in(arg(mask, 0))
    return None
