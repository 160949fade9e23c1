"""Caches of keys and values in the 16 bits in which attention reads and continues them."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.fx.node import Node

from strop.compiler.ir.caches import why_not_stored
from strop.compiler.ir.contract import DTYPE_NAMES, Stored
from strop.compiler.ir.nodes import arg, arguments, input_node
from strop.compiler.ir.program import Program
from strop.compiler.ir.stored import storing

_CACHED = torch.ops.strop.cached_attention.default


def cached_calls(program: Program, narrow: Collection[Node]) -> list[Node]:
    """The calls among some whose caches can be kept in another dtype."""
    outputs = set(program.outputs)
    calls = set(narrow).intersection(program.find(_CACHED))
    return [call for call in narrow if call in calls and why_not_stored(call, outputs) is None]


def narrow_caches(program: Program, calls: Collection[Node], dtype: torch.dtype) -> None:
    """Take and give caches in 16 bits, without the casts of their whole length in every call.

    Args:
        program: in which each cache is a cast of an input, and each longer one is cast back.
        calls: of attention, which compute in 16 bits.
        dtype: of 16 bits.
    """
    specs = program.contract.outputs
    names = {node: spec.name for node, spec in zip(program.outputs, specs)}
    results, kept = {node: node for node in program.outputs}, list[str]()
    for call in calls:
        given = arguments(call)
        for past in (given["past_k"], given["past_v"]):
            kept.append(_take_narrow(past, dtype))
        for longer in [user for user in call.users if arg(user, 1) > 0]:
            (wide,) = (user for user in longer.users if user in names)
            results[wide] = longer
            kept.append(names[wide])
    end, old = program.graph.output_node(), program.outputs
    end.args = (tuple(results[node] for node in old),)
    program.erase_dead(old)
    stored = Stored(DTYPE_NAMES[torch.float32])
    program.contract = storing(program.contract, dtype, dict.fromkeys(kept, stored))


def _take_narrow(past: Node, dtype: torch.dtype) -> str:
    """Let an input be in 16 bits that was cast to them; its name."""
    cache = input_node(past)
    with cache.meta["val"].fake_mode:
        cache.meta["val"] = cache.meta["val"].to(dtype)
    past.replace_all_uses_with(cache)
    cache.graph.erase_node(past)
    return str(cache.target)
