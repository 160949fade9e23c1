"""Runs a program on fake tensors and takes down what has to be run: launches, and calls of torch.

Views take no step: they are other readings of memory that is there.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.builder import fake_mode_of
from strop.compiler.ir.constants import constant_nodes, weight_names
from strop.compiler.ir.kernel_limits import why_no_kernel
from strop.compiler.ir.nodes import arguments, tensors_of
from strop.compiler.ir.printer import is_size, op_name
from strop.compiler.ir.program import Program
from strop.compiler.ir.unseen_sizes import sizes_unseen
from strop.compiler.lower.triton.expressions import Expressions
from strop.compiler.lower.triton.launches import Launches
from strop.compiler.lower.triton.memory import Memory, Place
from strop.compiler.lower.triton.names import Names
from strop.compiler.lower.triton.properties import is_random, views_only
from strop.compiler.lower.triton.reference import inputs_in, reference, tensors_in
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.lower.triton.table import TABLE
from strop.compiler.targets.target import Target
from strop.compiler.targets.triton.externs import encode
from strop.compiler.targets.triton.plan import ExternValues, Step
from strop.compiler.util.operators import listed_operator
from strop.kernels.launching import recording

aten = torch.ops.aten


class Tracer:
    """Everything that a row of the lowering table may ask for.

    Attributes:
        program: what is lowered.
        target: what it is lowered to.
        node: the call being lowered now.
        memory: which memory fake tensors stand for.
        launches: makes steps of what launchers record.
        steps: what has to be run, in order.
        origins: of each step the call that it was made for.
        weights: constants that steps read, by name, in order.
    """

    def __init__(self, program: Program, target: Target) -> None:
        self.program, self.target = program, target
        self.node = program.graph.output_node()
        self.memory = Memory(Expressions(program.symbols))
        self.launches = Launches(self.memory)
        self.steps: list[Step] = []
        self.origins: list[Node] = []
        self.weights: dict[str, Node] = {}
        self._mode = fake_mode_of(program)
        self._fixed = constant_nodes(program)
        self._values: dict[Node, Any] = {}
        self._last: dict[Node, Step | None] = {}
        self._attributes: dict[Any, Tensor] = {}
        self._labels, self._weight_names = Names(), Names()

    # What rows of the table call -----------------------------------------------------------

    def call(self, target: OpOverload[Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Call an operator of ATen's: a view of what is there, or a step for torch.

        Raises:
            NotLowered: its arguments or results cannot be held by a plan.
        """
        with self._running():
            result = target(*args, **kwargs)
        found = tensors_in(result)
        made = [t for t in found if not self.memory.is_known(t)]
        if made:
            self._extern(target, args, kwargs, result, made)
        return result

    def results_read(self) -> set[int]:
        """Which of the several results of the call something reads."""
        return {
            int(user.args[1])  # type: ignore[arg-type]
            for user in self.node.users
            if user.target is operator.getitem and user.users
        }

    # What the lowering calls ----------------------------------------------------------------

    def input(self, node: Node, number: int) -> None:
        """Bind an input; it is contiguous whatever the example was."""
        made = self._empty(node)
        self.memory.put(made, Place("input", number), str(node.target))
        self._values[node] = made

    def visit(self, node: Node) -> None:
        """Lower a call.

        Raises:
            NotLowered: neither a kernel nor torch runs it.
        """
        if node in self._fixed or is_size(node) or not tensors_of(node):
            return
        self.node = node
        if node.target is operator.getitem:
            source, index = node.args
            assert isinstance(source, Node) and isinstance(index, int)
            self._values[node] = self._values[source][index]
            self._last[node] = self._last[source]
        else:
            before = len(self.steps)
            self._values[node] = self._lowered(node)
            self._last[node] = self.steps[-1] if len(self.steps) > before else None
        self._note(node)

    def _note(self, node: Node) -> None:
        """Note at its last step that a value of the program is complete."""
        step, value = self._last[node], self._values[node]
        if step is not None and isinstance(value, Tensor):
            step.makes[node.name] = self.memory.value(value)

    def fail(self, node: Node) -> None:
        """Go on after a call that was not lowered, to find all of them."""
        with self._mode:
            values = pytree.tree_map_only(
                Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype), node.meta["val"]
            )
        for tensor in pytree.tree_leaves(values):
            if isinstance(tensor, Tensor):
                self.memory.put_made(tensor, node.name)
        self._values[node], self._last[node] = values, None

    def value(self, node: Node) -> Any:
        """The fake tensor of a node, or its size; a constant becomes a weight when it is read."""
        if node not in self._values:
            value = node.meta["val"]
            self._values[node] = self._weight(node) if isinstance(value, Tensor) else value
        return self._values[node]

    # How it works inside ---------------------------------------------------------------------

    def _lowered(self, node: Node) -> Any:
        row, refusals = TABLE.get(node.target), []
        if row is not None:
            try:
                return self._by_row(row, node)
            except NotLowered as reason:
                refusals.append(str(reason))
        try:
            return self._by_torch(node)
        except NotLowered as reason:
            raise NotLowered("; ".join([*refusals, str(reason)])) from reason

    def _by_row(self, row: Any, node: Node) -> Any:
        """What a row of the table makes; where it refuses, its steps are taken back."""
        reason = why_no_kernel(node, self.target)
        if reason is not None:
            raise NotLowered(reason)
        given = fx.map_arg(tuple(arguments(node).values()), self.value)
        steps, launches = len(self.steps), len(self.launches.recorded)
        memory = self.memory.extent
        try:
            return row(self, *given)
        except NotLowered:
            del self.steps[steps:], self.origins[steps:], self.launches.recorded[launches:]
            self.memory.cut(memory)
            raise

    def launch(self, launcher: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a launcher and take down its launches.

        Raises:
            NotLowered: it computes something by torch, or a plan cannot hold its arguments.
        """
        with self._running(), views_only(), recording() as recorded:
            try:
                result = launcher(*args, **kwargs)
            except (ValueError, TypeError) as error:  # how launchers refuse
                raise NotLowered(str(error)) from error
        self._add(self.launches.steps(recorded, self._labels.unique(self.node.name)))
        return result

    def _by_torch(self, node: Node) -> Any:
        target = node.target
        if not isinstance(target, OpOverload):
            raise NotLowered(f"{op_name(target)} is no operator")
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.value)
        return self._called(target, args, kwargs)

    def _called(self, target: OpOverload[Any, Any], args: Any, kwargs: Any) -> Any:
        if target.namespace == "strop":
            with self._running():
                part = reference(target, args, kwargs)
            return self._inlined(part, args, kwargs)
        if listed_operator(str(target)) is not target:
            raise NotLowered(f"plans may not call {op_name(target)}")
        if is_random(target, args, kwargs):
            raise NotLowered("it draws random numbers: give them as an input")
        return self.call(target, *args, **kwargs)

    def _inlined(self, part: fx.Graph, args: Any, kwargs: Any) -> Any:
        """Call the operators that stand for one of the dialect's."""
        given = iter(inputs_in((args, kwargs)))
        values: dict[Node, Any] = {}
        for node in part.nodes:
            taken = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "output":
                return taken[0][0]
            elif isinstance(node.target, OpOverload):
                values[node] = self._called(node.target, *taken)
            else:
                values[node] = node.target(*taken[0], **taken[1])
        raise AssertionError("a graph ends in its output")

    def _extern(
        self, target: Any, args: Any, kwargs: Any, result: Any, made: Sequence[Tensor]
    ) -> None:
        label = self._labels.unique(self.node.name)
        for tensor in made:
            self.memory.put_made(tensor, label)
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        if not all(isinstance(t, Tensor) for t in results):
            raise NotLowered(f"{op_name(target)} gives something that is no tensor")
        step = ExternValues(
            kind="extern",
            node=label,
            makes={},
            operator=str(target),
            args=[encode(a, self._encoded) for a in args],
            kwargs={k: encode(v, self._encoded) for k, v in kwargs.items()},
            results=[self.memory.value(t) if any(t is m for m in made) else None for t in results],
        )
        self._add([step])

    def _add(self, steps: Sequence[Step]) -> None:
        self.steps += steps
        self.origins += [self.node] * len(steps)

    def _encoded(self, value: Any) -> dict[str, Any]:
        """A tensor or a symbolic size, as an argument of a call."""
        if isinstance(value, Tensor):
            return {"value": self.memory.value(value)}
        if not isinstance(value, torch.SymInt):
            raise NotLowered(f"it takes {value!r}, which no plan can hold")
        return {"size": self.memory.expressions.text(value)}

    def _empty(self, node: Node) -> Tensor:
        value = node.meta["val"]
        with self._mode:
            return torch.empty(tuple(value.shape), dtype=value.dtype)

    def _weight(self, node: Node) -> Tensor:
        if node not in self._fixed:
            raise NotLowered(f"%{node.name} was not lowered")
        if node.op == "get_attr" and node.target in self._attributes:
            return self._attributes[node.target]  # several nodes may name one weight
        made, name = self._empty(node), self._weight_names.unique(_weight_name(node))
        self.memory.put(made, Place("weight", len(self.weights)), name)
        self.weights[name] = node
        if node.op == "get_attr":
            self._attributes[node.target] = made
        return made

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Where operators run on fake tensors, and nothing is concluded from captured sizes.

        Raises:
            NotLowered: one of them fails, as where it would hold for some sizes only.
        """
        env = self._mode.shape_env
        with ExitStack() as active:
            for context in (self._mode, enable_python_dispatcher(), torch.no_grad()):
                active.enter_context(context)
            active.enter_context(sizes_unseen())
            if env is not None:
                active.enter_context(env.error_on_new_guards())
            try:
                yield
            except NotLowered:
                raise
            except Exception as error:  # operators, launchers and torch's guards raise anything
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise NotLowered(f"it cannot be typed at all sizes: {said}") from error


def _weight_name(node: Node) -> str:
    """Its own; that of the only weight that it is computed from; else that of the value."""
    names = set(weight_names(node))
    return names.pop() if len(names) == 1 else node.name
