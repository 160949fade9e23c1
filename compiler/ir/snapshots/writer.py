"""A program on disk: its graph as JSON, each weight once under the hash of its content.

``reader.py`` reads it again.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.contract import DTYPE_NAMES
from strop.compiler.ir.data_sizes import made_symbols
from strop.compiler.ir.nodes import expression
from strop.compiler.ir.printer import source_line
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.snapshots.size_arithmetic import NAMES
from strop.compiler.ir.snapshots.weight_store import WeightStore, write_tensors
from strop.compiler.util.errors import UsageError

FORMAT = 1
WEIGHTS = "weights"
INPUTS = "inputs.safetensors"


def save_program(program: Program, path: Path, store: WeightStore) -> None:
    """Write a program as JSON, its weights into the store.

    Raises:
        UsageError: the graph holds an argument that JSON cannot.
    """
    values = {
        "strop_snapshot": FORMAT,
        "contract": asdict(program.contract),
        "symbols": _symbols(program),
        "weights": {name: store.put(tensor) for name, tensor in program.weights.items()},
        "trained": [n for n, t in program.weights.items() if isinstance(t, torch.nn.Parameter)],
        "origins": {name: asdict(origin) for name, origin in program.origins.items()},
        "nodes": [_node(node, program) for node in program.graph.nodes],
    }
    path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")


def save_inputs(inputs: Inputs, folder: Path) -> None:
    """Write one set of inputs beside snapshots."""
    write_tensors({n: t.contiguous() for n, t in inputs.items()}, folder / INPUTS)


def _symbols(program: Program) -> dict[str, dict[str, Any]]:
    """Every symbol of the inputs' sizes: the user's name, the range, and the size traced with."""
    found: dict[str, dict[str, Any]] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        for size in node.meta["val"].shape:
            if isinstance(size, torch.SymInt):
                # A size may be a sum of dims.
                for symbol in expression(size).free_symbols:
                    name = str(symbol)
                    found[name] = _symbol(symbol, size.node.shape_env)
                    found[name]["name"] = program.symbols.get(name, name)
    return dict(sorted(found.items()))


def _symbol(symbol: Any, env: Any) -> dict[str, Any]:
    bounds = env.bound_sympy(symbol)
    most = int(bounds.upper) if bounds.upper.is_Integer else None
    hint = int(env.guarding_hint_or_throw(symbol))
    return {"min": int(bounds.lower), "max": most, "hint": hint}


def _node(node: Node, program: Program) -> dict[str, Any]:
    values: dict[str, Any] = {"name": node.name, "op": node.op, "target": _target_name(node)}
    if node.op == "placeholder":
        value = node.meta["val"]
        values["dtype"] = DTYPE_NAMES[value.dtype]
        values["shape"] = [s if isinstance(s, int) else str(expression(s)) for s in value.shape]
    else:
        values["args"] = [_encode(a) for a in node.args]
        values["kwargs"] = {k: _encode(v) for k, v in node.kwargs.items()}
    if node.op == "call_function":
        values["makes"] = [program.symbols[str(s)] for s in made_symbols(node)]
    values["source"] = source_line(node)
    values["modules"] = [
        [n, str(kind)] for n, kind in node.meta.get("nn_module_stack", {}).values()
    ]
    values["made_by"] = node.meta.get("made_by")
    return {k: v for k, v in values.items() if v not in (None, [], {})}


def _target_name(node: Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    if isinstance(node.target, OpOverload):
        return str(node.target)
    if node.target in NAMES:
        return NAMES[node.target]
    raise UsageError(f"%{node.name} calls {node.target}, which a snapshot cannot hold")


def _encode(value: Any) -> Any:
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        return [_encode(v) for v in value]
    if isinstance(value, torch.dtype):
        return {"dtype": DTYPE_NAMES[value]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, (torch.memory_format, torch.layout)):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UsageError(f"a snapshot cannot hold the argument {value!r}")
