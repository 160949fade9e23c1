"""What operators use an axis as; from this a group gets its kind."""

from __future__ import annotations

from strop.passes.prune.dims import Dim, leaves

HEADS = "heads of attention"
HEAD_SIZE = "size of a head"
COPIES = "copies of one position"
CHANNELS = "channels of a convolution"
LINEAR_IN, LINEAR_OUT = "input of a linear layer", "output of a linear layer"
SUMMED = "terms of a sum"
PLACES = "places in an image or a signal"


def mark(role: str, *dims: Dim) -> None:
    """Note what an operator uses these axes as."""
    for one in leaves(*dims):
        one.roles.setdefault(role)


def kind_of(leaf: Dim, layers: int) -> str:
    """The kind of a group: heads, queries, head-size, width, channels, ffn or other.

    Args:
        leaf: the axis.
        layers: how many linear layers, or parts of one, give it.

    Under grouped queries, ``heads`` are the heads of keys, with all queries that read them, and
    ``queries`` are the queries of each of those groups, which one layer gives.
    """
    roles = leaf.roles
    if HEADS in roles:
        return "queries" if COPIES in roles and layers == 1 else "heads"
    if HEAD_SIZE in roles:
        return "head-size"
    if SUMMED in roles:
        return "width"
    if CHANNELS in roles:
        return "channels"
    return "ffn" if {LINEAR_IN, LINEAR_OUT} <= roles.keys() else "other"


KINDS = ("heads", "queries", "head-size", "width", "channels", "ffn", "other")
