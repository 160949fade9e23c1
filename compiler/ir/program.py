"""The IR: an ATen graph, its weights by source name, and the contract with the caller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn
from torch.fx.node import Argument, Node, Target

from strop.compiler.ir.contract import Contract
from strop.compiler.ir.interpreter import interpret, interpret_in_segments
from strop.compiler.ir.printer import program_text
from strop.compiler.util.errors import VerifyError


@dataclass(frozen=True)
class Origin:
    """Where a weight came from.

    Attributes:
        sources: state-dict names in the original module (several when tied).
        made_by: the pass that gave it its values, or "capture".
        kept: by axis, the position in the original weight of every position that is left; axes of
            which nothing was dropped are not named.
    """

    sources: tuple[str, ...]
    made_by: str = "capture"
    kept: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def shrunk(self, indices: Mapping[int, torch.Tensor], made_by: str) -> Origin:
        """The provenance of a weight that keeps these positions of some axes."""
        kept = dict(self.kept)
        for axis, positions in indices.items():
            before = kept.get(axis)
            numbers = positions.tolist()
            kept[axis] = tuple(numbers if before is None else (before[i] for i in numbers))
        return replace(self, made_by=made_by, kept=kept)


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

    def run_in_segments(self, segments: int, /, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same with less memory until gradients are computed, and more time for them."""
        ordered = (inputs[spec.name] for spec in self.contract.inputs)
        return tuple(interpret_in_segments(self.graph, self.weights, ordered, segments))

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

    def set_weight(self, name: str, tensor: torch.Tensor, made_by: str) -> None:
        """Give a weight new values; programs that share the old ones keep them.

        Args:
            name: of a weight that is there.
            tensor: of the same shape and dtype.
            made_by: the pass that made the values.

        Raises:
            VerifyError: there is no such weight, or it has another shape or dtype.
        """
        old = self.weights.get(name)
        if old is None:
            raise VerifyError(f"there is no weight '{name}' to give new values to")
        if (old.shape, old.dtype) != (tensor.shape, tensor.dtype):
            raise VerifyError(
                f"weight '{name}' is {old.dtype} {tuple(old.shape)}; its new values are "
                f"{tensor.dtype} {tuple(tensor.shape)}"
            )
        kept = tensor.detach()
        self.weights[name] = (
            nn.Parameter(kept, old.requires_grad) if isinstance(old, nn.Parameter) else kept
        )
        self.origins[name] = replace(self.origins.get(name, Origin((name,))), made_by=made_by)

    def shrink_weight(self, name: str, indices: Mapping[int, torch.Tensor], made_by: str) -> None:
        """Keep some positions of a weight; programs that share it keep all.

        The types of values that depend on it are the caller's to compute anew.

        Args:
            name: of a weight that is there.
            indices: by axis, the positions that stay, in order; int64.
            made_by: the pass that chose them.
        """
        old = self.weights[name]
        kept = old.detach()
        for axis, positions in indices.items():
            kept = kept.index_select(axis, positions)
        self.weights[name] = (
            nn.Parameter(kept, old.requires_grad) if isinstance(old, nn.Parameter) else kept
        )
        self.origins[name] = self.origins.get(name, Origin((name,))).shrunk(indices, made_by)

    def has_other_values(self, other: Program) -> bool:
        """Whether a weight that both have holds another tensor."""
        return any(other.weights.get(name, t) is not t for name, t in self.weights.items())

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
        return program_text(self)
