"""Look at what a float value is computed from."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx.node import Node

from strop.compiler.ir.nodes import has_floats

# Masks and biases are computed in fewer steps than these.
_MOST = 64


def any_float_behind(value: Node, is_one: Callable[[Node], bool]) -> bool:
    """Whether a float value, or a float that it is computed from, may be of a kind.

    Looks at a bounded number of values: where there are more, the answer is yes.
    """
    pending, seen = [value], {value}
    while pending and len(seen) < _MOST:
        node = pending.pop()
        if is_one(node):
            return True
        new = [n for n in node.all_input_nodes if n not in seen and has_floats(n)]
        pending += new
        seen.update(new)
    return bool(pending)
