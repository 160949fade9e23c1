"""The proof that attention gives padded keys the weight 0 exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, dtype_of, shape_of
from strop.passes.ragged.states import Bounds, Places, State, Unproven

aten = torch.ops.aten
strop = torch.ops.strop

ATTENTION = (strop.attention.default, aten.scaled_dot_product_attention.default)
# In a mask, [batch, heads, queries, keys]. Batch and queries stand where they do in split heads.
KEYS: Places = (-4, -1)
# Beside a visible score, one with this added has the weight 0 in float32, whatever both were.
_HIDES = -1e30
# Whatever hides scores in a row that shows others, these do not: biases and zeros.
_SHOWS = -1e20


def mask_of(node: Node) -> Node | None:
    """The mask of an attention."""
    given = arguments(node)
    mask = given.get("mask", given.get("attn_mask"))
    return mask if isinstance(mask, Node) else None


def heads_places(x: Node) -> Places:
    """The places of positions in queries, keys, values and the result: packed or split heads."""
    return (-3, -2) if len(shape_of(x)) == 3 else (-4, -2)


def require_hidden_keys(node: Node, mask_state: State) -> None:
    """Check that no query sees a padded key.

    A row that hides all keys counts as well. Where the mask is true and false, its result is 0.
    Where numbers are added, it is a mean over all keys, so there must be no such row but in a
    sequence that is all padding, which is computed whole.

    Raises:
        Unproven: some query may.
    """
    mask = mask_of(node)
    if mask is None:
        raise Unproven("attention has no mask, so padded keys count", node)
    if mask_state.tokens is not None:
        raise Unproven("the mask of attention is computed from padded positions too", node)
    known = mask_state.known.get(KEYS)
    padded = None if known is None else known.padded
    if dtype_of(mask) == torch.bool:
        if padded != (0.0, 0.0):
            raise Unproven("the mask of attention is not false at every padded key", node)
        return
    if padded is None or not padded[1] <= _HIDES:
        found = "unknown numbers" if padded is None else f"{padded[1]:g}"
        raise Unproven(
            f"the mask of attention adds {found} to the scores of padded keys, "
            f"and only {_HIDES:g} or less hides them for certain",
            node,
        )
    if not _shows(None if known is None else known.real):
        raise Unproven(
            "the mask of attention may hide all real keys, and the result is then a mean over "
            "padded ones",
            node,
        )


def _shows(real: Bounds) -> bool:
    return real is not None and real[0] >= _SHOWS


def is_additive_causal(node: Node) -> bool:
    """Whether a query may see no key at all but by a mask that is added."""
    given: dict[str, Any] = arguments(node)
    mask = mask_of(node)
    causal = bool(given.get("causal", given.get("is_causal")))
    return causal and mask is not None and dtype_of(mask) != torch.bool
