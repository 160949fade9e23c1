"""The inputs of a program that hold what earlier calls computed."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.fx.node import Node

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.ir.nodes import arg, arguments
from strop.compiler.ir.program import Program

_CACHED = torch.ops.strop.cached_attention.default


def cache_inputs(program: Program) -> list[Node]:
    """The placeholders that attention reads as caches, in the order of its calls."""
    calls = [arguments(node) for node in program.find(_CACHED)]
    found = [call[name] for call in calls for name in ("past_k", "past_v")]
    return [node for node in dict.fromkeys(found) if node.op == "placeholder"]


def _readers(cache: Node) -> list[Node]:
    """What reads a cache, and not its size alone."""
    return [user for user in cache.users if user.target is not torch.ops.aten.sym_size.int]


def why_not_stored(call: Node, outputs: Collection[Node]) -> str | None:
    """Why a call's caches cannot be kept in another dtype, or None where they can.

    Args:
        call: of ``strop::cached_attention``.
        outputs: of the program.
    """
    given = arguments(call)
    pasts = [given["past_k"], given["past_v"]]
    if given["k_scale"] is not None:
        return "its caches are quantized already"
    if any(past.op != "placeholder" or len(_readers(past)) > 1 for past in pasts):
        return "its caches are no inputs that it alone reads"
    if any(past.meta["val"].dtype != torch.float32 for past in pasts):
        return "its caches are not in float32"
    if {1, 2} - {arg(user, 1) for user in call.users if user in outputs}:
        return "the longer caches are no outputs"
    return None
