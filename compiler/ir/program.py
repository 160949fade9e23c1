"""The IR: an ATen graph, its weights by source name, and the contract with the caller."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.fx.node import Argument, Node, Target

from strop.compiler.ir.interpreter import interpret

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "bool",
    torch.complex64: "c64",
}


@dataclass(frozen=True)
class Dim:
    """A named dynamic dimension and the sizes it may take; ``max=None`` is unbounded."""

    name: str
    min: int
    max: int | None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, short dtype name, and sizes (numbers or dim expressions)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Contract:
    """What the caller may rely on: named inputs and outputs, and the named dynamic dims."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Origin:
    """Where a weight came from.

    Attributes:
        sources: state-dict names in the original module (several when tied).
        made_by: the pass that created it, or "capture".
    """

    sources: tuple[str, ...]
    made_by: str = "capture"


@dataclass
class Program:
    """A captured model that always runs, in eager torch, and is differentiable.

    The graph's placeholders are the contract's inputs in order; ``get_attr`` nodes name
    ``weights``; the output node returns one flat tuple. Every node has its FakeTensor or SymInt
    in ``meta["val"]``, and ``meta["stack_trace"]`` where it came from a source line.

    Attributes:
        graph: ATen overloads before decomposition, ``strop::`` ops, and SymInt arithmetic.
        weights: parameters and constants by name; shared, never copied, between clones.
        contract: inputs, outputs, dynamic dims.
        origins: provenance of every weight, by name.
        symbols: the name the user gave to each of torch's symbols ("s43" -> "batch").
    """

    graph: fx.Graph
    weights: dict[str, torch.Tensor]
    contract: Contract
    origins: dict[str, Origin] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)

    def clone(self) -> Program:
        """Copy the graph; share the weights.

        A name stays with its value: what was erased gives its name to nothing else later.
        """
        graph = fx.Graph()
        copies: dict[Node, Node] = {}
        result = graph.graph_copy(self.graph, copies)
        graph.output(result)
        graph._graph_namespace._used_names |= self.graph._graph_namespace._used_names
        return Program(
            graph, dict(self.weights), self.contract, dict(self.origins), dict(self.symbols)
        )

    def run(self, /, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Execute eagerly on keyword tensors; returns the outputs in the contract's order."""
        ordered = (inputs[spec.name] for spec in self.contract.inputs)
        result: tuple[torch.Tensor, ...] = interpret(self.graph, self.weights, ordered)
        return tuple(result)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The weights that can be trained, by name."""
        return {n: w for n, w in self.weights.items() if isinstance(w, nn.Parameter)}

    def find(self, *targets: Target) -> list[Node]:
        """Nodes that call one of the targets, in program order."""
        found = [n for t in targets for n in self.graph.find_nodes(op="call_function", target=t)]
        return sorted(found) if len(targets) > 1 else found

    def calls(self) -> Iterator[Node]:
        """Every call node, in program order."""
        return (node for node in self.graph.nodes if node.op == "call_function")

    @property
    def outputs(self) -> tuple[Node, ...]:
        """The nodes whose values are returned, in the contract's order."""
        result: tuple[Node, ...] = tuple(self.graph.output_node().args[0])  # type: ignore[arg-type]
        return result

    def weight_of(self, value: Argument) -> torch.Tensor | None:
        """The tensor behind a weight node, or None for anything else."""
        if isinstance(value, Node) and value.op == "get_attr":
            return self.weights[str(value.target)]
        return None

    def add_weight(self, name: str, tensor: torch.Tensor, origin: Origin) -> str:
        """Register a new constant under a name made unique; returns that name."""
        unique, count = name, 1
        while unique in self.weights:
            count += 1
            unique = f"{name}_{count}"
        self.weights[unique] = tensor
        self.origins[unique] = origin
        return unique

    def erase_dead(self, roots: Iterable[Node]) -> None:
        """Erase the given nodes if unused, and whatever only they used, and so on upwards."""
        pending = list(roots)
        while pending:
            node = pending.pop()
            if node.users or node.op in ("placeholder", "output") or node._erased:
                continue
            inputs = list(node.all_input_nodes)
            self.graph.erase_node(node)
            pending.extend(inputs)

    def drop_unused_weights(self) -> None:
        """Forget weights that no node names any more."""
        used = {str(n.target) for n in self.graph.find_nodes(op="get_attr")}
        self.weights = {name: t for name, t in self.weights.items() if name in used}
        self.origins = {name: o for name, o in self.origins.items() if name in used}

    def __str__(self) -> str:
        from strop.compiler.ir.printer import program_text

        return program_text(self)


@cache
def _schema(target: OpOverload[Any, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (a.name, a.default_value if a.has_default_value() else inspect.Parameter.empty)
        for a in target._schema.arguments
    )


def arguments(node: Node) -> dict[str, Any]:
    """All arguments of an operator call by schema name, defaults filled in, in schema order."""
    if not isinstance(node.target, OpOverload):
        return {str(i): a for i, a in enumerate(node.args)}
    values = list(node.args)
    filled = {}
    for i, (name, default) in enumerate(_schema(node.target)):
        filled[name] = values[i] if i < len(values) else node.kwargs.get(name, default)
    return filled


def arg(node: Node, index: int) -> Any:
    """A positional argument as written, without fx's union of everything it might be."""
    return node.args[index]


def input_node(node: Node, index: int = 0) -> Node:
    """A positional argument that is a value of the graph."""
    value = node.args[index]
    assert isinstance(value, Node), f"argument {index} of {node.format_node()} is no value"
    return value


def value_of(node: Node) -> Any:
    """The FakeTensor or SymInt that stands for this node's value."""
    return node.meta["val"]


def tensors_of(node: Node) -> list[torch.Tensor]:
    """The FakeTensors of a node's value: one, those of several results, or none for a size."""
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return [v for v in values if isinstance(v, torch.Tensor)]


def shape_of(value: Any) -> tuple[int | torch.SymInt, ...]:
    """Sizes of a tensor-valued node."""
    return tuple(value_of(value).shape)


def dtype_of(value: Any) -> torch.dtype:
    """Element type of a tensor-valued node."""
    dtype: torch.dtype = value_of(value).dtype
    return dtype


def expression(size: int | torch.SymInt | torch.SymFloat) -> Any:
    """A size as a plain int or a sympy expression, so that equal sizes compare equal."""
    return size.node.expr if isinstance(size, (torch.SymInt, torch.SymFloat)) else size


def same_size(a: int | torch.SymInt, b: int | torch.SymInt) -> bool:
    """Whether two sizes are equal for every value of the dynamic dims (never adds a guard)."""
    return bool(expression(a) == expression(b))


def same_shape(a: Iterable[int | torch.SymInt], b: Iterable[int | torch.SymInt]) -> bool:
    """Whether two shapes are equal for every value of the dynamic dims (never adds a guard)."""
    left, right = tuple(a), tuple(b)
    return len(left) == len(right) and all(same_size(x, y) for x, y in zip(left, right))


def static_int(value: Any) -> int | None:
    """The number behind an argument if it is the same at every dynamic size, else None."""
    if isinstance(value, Node):
        value = value_of(value)
    if isinstance(value, torch.SymInt):
        expr = value.node.expr
        return int(expr) if expr.is_Integer else None
    return value if isinstance(value, int) else None


def per_axis(value: Any, axes: int) -> list[int]:
    """A setting of a convolution for each spatial axis: torch repeats a single one."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values
