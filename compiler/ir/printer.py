"""Print a program as stable SSA text, and find the source line behind a node."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.contract import DTYPE_NAMES, TensorSpec
from strop.compiler.util.visible import visible

if TYPE_CHECKING:
    from strop.compiler.ir.program import Program

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_INTERNAL = ("/torch/", "/transformers/utils/", "/transformers/masking_utils")


def source_line(node: Node) -> str | None:
    """``file.py:31`` for the innermost frame outside torch, or None.

    Only the file's name is given: text goes into artifacts, which hold no path of the machine
    that built them.
    """
    return _innermost(node.meta.get("stack_trace") or "")


def module_path(node: Node) -> str | None:
    """Path of the innermost module around a node: ``encoder.layer.0``; None where not known."""
    paths = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    # torch marks what its own tracing added, such as the sizes of inputs, by a path like this.
    known = [p for p in paths if not p.startswith("_empty_nn_module_stack")]
    return known[-1] if known else None


@lru_cache(maxsize=4096)
def _innermost(stack_trace: str) -> str | None:
    frames: list[tuple[str, str]] = _FRAME.findall(stack_trace)
    if not frames:
        return None
    frames = [f for f in frames if not f[0].startswith("<")] or frames
    mine = [f for f in frames if not any(part in f[0] for part in _INTERNAL)] or frames
    file, line = mine[-1]
    return f"{PurePath(file).name}:{line}"


def describe(node: Node) -> str:
    """``%name = op (file.py:31)``: how messages point at a node."""
    where = source_line(node)
    return visible(f"%{node.name} = {op_name(node.target)}" + (f" ({where})" if where else ""))


def op_name(target: Any) -> str:
    """``aten.add.Tensor`` style name of a call target, without a ``.default`` suffix."""
    if isinstance(target, OpOverload):
        return f"{target.namespace}.{str(target).split('.', 1)[1].removesuffix('.default')}"
    return f"py.{getattr(target, '__name__', target)}"


def size_text(size: Any, symbols: dict[str, str]) -> str:
    """A size in the user's names: ``batch``, ``2*seq``, ``384``."""
    if not isinstance(size, (torch.SymInt, torch.SymFloat)):
        return str(size)
    return _expression_text(size.node.expr, tuple(symbols.items()))


@lru_cache(maxsize=4096)
def _expression_text(expr: Any, symbols: tuple[tuple[str, str], ...]) -> str:
    # Renamed before it is printed: the order of terms follows the names.
    names = dict(symbols)
    known = [s for s in expr.free_symbols if s.name in names]
    return str(expr.xreplace({s: s.func(names[s.name], **s.assumptions0) for s in known}))


def tensor_spec(name: str, node: Node, symbols: dict[str, str]) -> TensorSpec:
    """What a contract says of a tensor-valued node: sizes are numbers, or in the user's names."""
    value = node.meta["val"]
    shape = tuple(
        size_text(s, symbols) if isinstance(s, torch.SymInt) else int(s) for s in value.shape
    )
    return TensorSpec(name, DTYPE_NAMES[value.dtype], shape)


def type_text(value: Any, symbols: dict[str, str]) -> str:
    """``f32[batch, seq, 384]`` for a tensor, a parenthesised list for several."""
    if isinstance(value, torch.Tensor):
        sizes = ", ".join(size_text(s, symbols) for s in value.shape)
        return f"{DTYPE_NAMES.get(value.dtype, str(value.dtype))}[{sizes}]"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(type_text(v, symbols) for v in value)})"
    return size_text(value, symbols)


def program_text(program: Program) -> str:
    """The whole program, one value a line; sizes that are computed appear as expressions."""
    symbols = program.symbols
    header = ", ".join(
        f"%{n.name} : {type_text(n.meta['val'], symbols)}"
        for n in program.graph.find_nodes(op="placeholder")
    )
    body = [f"  {node_text(node, symbols)}" for node in program.calls() if not is_size(node)]
    result = ", ".join(
        f'"{spec.name}": {_argument(node, symbols)}'
        for spec, node in zip(program.contract.outputs, program.outputs)
    )
    lines = [f"program({header})", *body, f"  return {result}", ""]
    return "\n".join(map(visible, lines))


def node_text(node: Node, symbols: dict[str, str]) -> str:
    """One line of a program's text: name, type, call and source line."""
    text = f"%{node.name} : {type_text(node.meta.get('val'), symbols)}"
    text += f" = {op_name(node.target)}{arguments_text(node, symbols)}"
    where = source_line(node)
    return visible(f"{text}  # {where}" if where else text)


def arguments_text(node: Node, symbols: dict[str, str], *, names: bool = True) -> str:
    """The arguments of a call in parentheses.

    Args:
        node: the call.
        symbols: the user's names of sizes.
        names: tell values and weights by name; otherwise as ``%`` and ``@``, so that the text is
            equal in layers that repeat.
    """
    parts = [_argument(a, symbols, names) for a in node.args]
    parts += [f"{k}={_argument(v, symbols, names)}" for k, v in node.kwargs.items()]
    return f"({', '.join(parts)})"


def is_size(node: Node) -> bool:
    """Whether a node is arithmetic on sizes, which text shows as expressions where it is used."""
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int))


def _argument(value: Any, symbols: dict[str, str], names: bool = True) -> str:
    if isinstance(value, Node):
        if value.op == "get_attr":
            return f"@{value.target}" if names else "@"
        if is_size(value):
            return size_text(value.meta["val"], symbols)
        return f"%{value.name}" if names else "%"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_argument(v, symbols, names) for v in value)}]"
    if isinstance(value, torch.dtype):
        return DTYPE_NAMES.get(value, str(value))
    return repr(value) if isinstance(value, str) else str(value)
