"""The inputs of a program that hold what earlier calls computed."""

from __future__ import annotations

import torch
from torch.fx.node import Node

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program

_CACHED = torch.ops.strop.cached_attention.default


def cache_inputs(program: Program) -> list[Node]:
    """The placeholders that attention reads as caches, in the order of its calls."""
    calls = [arguments(node) for node in program.find(_CACHED)]
    found = [call[name] for call in calls for name in ("past_k", "past_v")]
    return [node for node in dict.fromkeys(found) if node.op == "placeholder"]
