"""The ONNX graph that is being written: everything that a row of the lowering table may ask for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import onnx_ir as ir
import sympy
import torch
from torch.fx.node import Node

from strop.compiler.ir.caches import cache_inputs
from strop.compiler.ir.constants import constant_nodes, evaluate
from strop.compiler.ir.data_sizes import made_symbols
from strop.compiler.ir.nodes import expression, same_shape, same_size, tensors_of
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.onnx.dtypes import onnx_dtype
from strop.compiler.lower.onnx.kernels import lacks, result_types
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.sizes import emit_size
from strop.compiler.lower.onnx.unused import without_unused
from strop.compiler.targets.target import OnnxTarget

MICROSOFT = "com.microsoft"
_Made = TypeVar("_Made")
# In the metadata of an ONNX node, which is not written: the operator that it was emitted for.
MADE_FROM = "strop.made_from"
# In that of a value: its dtype, as far as it is known.
DTYPE = "strop.dtype"
# In that of an initializer: the values of the program that it is computed from.
COMPUTED_FROM = "strop.computed_from"
Size = int | torch.SymInt | Node
EmitCall = Callable[["Emitter", Node], Any]
"""Emits one operator call by whichever way takes it; raises ``NotLowered`` where none does."""


class Emitter:
    """Turns one program into one ONNX graph.

    Attributes:
        program: what is lowered.
        node: the operator being lowered now.
        choices: which variant of an emitter the target takes.
        nodes: what was emitted, in order.
        initializers: constants by name.
        made_from: the operator of the program that it stands for.
        exported: what ``torch.onnx`` made of single operators, or why it did not, by signature.
        shared_caches: inputs that may lie in one buffer, larger than they are, with the outputs
            that continue them.
        copied_caches: why other caches may not, by input.
    """

    def __init__(
        self, program: Program, target: OnnxTarget, choices: Choices, emit_call: EmitCall
    ) -> None:
        self.program = program
        self.target = target
        self.choices = choices
        self._emit_call = emit_call
        self.exported: dict[str, ir.Model | NotLowered] = {}
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.node = self.made_from = program.graph.output_node()
        self._values: dict[Node, Any] = {}
        self._constants: dict[Any, ir.Value] = {}
        self._sizes: dict[Any, ir.Value] = {}
        self._made: dict[Any, tuple[ir.Value, int]] = {}
        self._memo: dict[Any, Any] = {}
        self._fixed = dict.fromkeys(constant_nodes(program), program)
        # Where a cache lies in a larger buffer, its own shape does not tell how long it is.
        self._caches = set(cache_inputs(program))
        self.shared_caches: set[str] = set()
        self.copied_caches: dict[str, str] = {}
        self._may_be_empty = any(dim.min == 0 for dim in program.contract.dims)
        # The names that callers use are theirs: nothing inside the graph may take them.
        specs = (*program.contract.inputs, *program.contract.outputs)
        self._taken: set[str] = {spec.name for spec in specs}

    # What emitter functions call ------------------------------------------------------------

    def op(
        self, op_type: str, *inputs: Any, domain: str = "", outputs: int = 1, **attributes: Any
    ) -> Any:
        """Append a node; returns its value, or a tuple of values where ``outputs`` > 1.

        Inputs are ``ir.Value`` or None for an optional input left out; None attributes too.

        Raises:
            NotLowered: the runtime has no kernel for it in this dtype, or it is one of ONNX
                Runtime's own, and the target is another.
        """
        if domain and not self.target.contrib:
            raise NotLowered(f"{op_type} is no operator of the ONNX standard")
        if any(isinstance(i, Anything) for i in inputs):
            return Anything() if outputs == 1 else (Anything(),) * outputs
        while inputs and inputs[-1] is None:  # ONNX Runtime crashes on some that end in ""
            inputs = inputs[:-1]
        kept = {k: v for k, v in attributes.items() if v is not None}
        types = [None if i is None else i.meta.get(DTYPE, i.dtype) for i in inputs]
        if not domain and (dtype := lacks(op_type, types)) is not None:
            raise NotLowered(f"the runtime has no kernel of {op_type} in {dtype.name.lower()}")
        node = ir.node(op_type, inputs, kept, domain=domain, num_outputs=outputs)
        for value, made in zip(node.outputs, result_types(op_type, types, kept, outputs)):
            value.meta[DTYPE] = made
            value.name = self.unique(self.made_from.name, start=1)
        node.name = node.outputs[0].name
        node.meta[MADE_FROM] = self.made_from
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def value(self, argument: Any) -> Any:
        """The ONNX value of a graph value; None stays None; sizes become int64 tensors [1]."""
        if argument is None:
            return None
        if isinstance(argument, Node) and isinstance(argument.meta["val"], torch.Tensor):
            if argument not in self._values:
                self._values[argument] = self._initializer(argument)
            return self._values[argument]
        return self.size(argument)

    def operand(self, argument: Any, dtype: torch.dtype) -> Any:
        """A tensor, size or number as a value of one dtype, cast if it has another."""
        if isinstance(argument, (bool, int, float)):
            return self.constant(np.array(argument), dtype)
        if isinstance(argument.meta["val"], torch.Tensor):
            value, found = self.value(argument), argument.meta["val"].dtype
        else:
            computed = isinstance(argument.meta["val"], torch.SymFloat)
            value = self.op("Squeeze", self.size(argument))
            found = torch.float64 if computed else torch.int64
        return value if found == dtype else self.cast(value, dtype)

    def cast(self, value: ir.Value, dtype: torch.dtype) -> Any:
        """Append a Cast."""
        return self.op("Cast", value, to=int(onnx_dtype(dtype)))

    def constant(self, array: Any, dtype: torch.dtype = torch.int64) -> ir.Value:
        """An initializer for a small array; equal ones are shared.

        Raises:
            NotLowered: it would be in bfloat16, in which the runtime computes nothing.
        """
        if dtype == torch.bfloat16:
            raise NotLowered("it computes in bfloat16, for which the runtime has no kernels")
        tensor = torch.as_tensor(np.asarray(array)).to(dtype)
        key = (dtype, tuple(tensor.shape), str(tensor.tolist()))
        if key not in self._constants:
            name = self.unique(f"const_{len(self._constants)}")
            self._constants[key] = self._add(ir.tensor(tensor.numpy(), name=name))
        return self._constants[key]

    def is_constant(self, argument: Any) -> bool:
        """Whether a value of the program is known when the file is written."""
        return argument in self._fixed

    def int8(self, weight: Node, scale: Node, transposed: bool = False) -> ir.Value:
        """The int8 grid of a float weight under a scale per row; shared where it is used again."""
        quantize = torch.ops.strop.int8_weight.default

        def compute(*both: torch.Tensor) -> torch.Tensor:
            grid: torch.Tensor = quantize(*both)
            return grid.t() if transposed else grid

        name = f"{weight.target if weight.op == 'get_attr' else weight.name}.int8"
        key = ("int8", weight, scale, transposed)
        return self.once(key, lambda: self.derived([weight, scale], compute, name))

    def derived(
        self, sources: Sequence[Node], compute: Callable[..., torch.Tensor], name: str = ""
    ) -> ir.Value:
        """An initializer computed from constant values when the file is written.

        Raises:
            NotLowered: a source is no constant.
        """
        for source in sources:
            if source not in self._fixed:
                raise NotLowered(f"%{source.name} is no weight, but computed from inputs")
        values = [n.meta["val"] for n in sources]
        typed = compute(*(torch.empty(v.shape, dtype=v.dtype, device="meta") for v in values))

        def read() -> ir.TensorProtocol:
            made = compute(*(evaluate(n, self.program) for n in sources))
            return ir.tensor(made.contiguous())

        unique = self.unique(name or f"{self.node.name}.weight")
        shape = ir.Shape(list(typed.shape))
        lazy = ir.LazyTensor(read, onnx_dtype(typed.dtype), shape=shape, name=unique)
        return self._add(lazy, sources)

    def size(self, size: Size) -> ir.Value:
        """A size as an int64 tensor of shape [1]; equal expressions are computed once."""
        return self._size(sympy.sympify(expression(_plain(size))))

    def shape(self, sizes: Sequence[Size]) -> ir.Value:
        """Sizes as one int64 vector."""
        plain = [_plain(s) for s in sizes]
        if all(isinstance(expression(s), (int, sympy.Integer)) for s in plain):
            return self.constant([int(expression(s)) for s in plain])
        key = ("shape", tuple(str(expression(s)) for s in plain))
        parts = [self.size(s) for s in plain]
        joined: ir.Value = self.once(key, lambda: self.op("Concat", *parts, axis=0))
        return joined

    def reshape(self, value: ir.Value, old: Sequence[Size], new: Sequence[Size]) -> Any:
        """Reshape with 0 for kept axes and one -1 where that says it all: no shape arithmetic."""
        before, plain = [_plain(s) for s in old], [_plain(s) for s in new]
        if same_shape(before, plain):
            return value
        spec: list[int | None] = []
        for axis, size in enumerate(plain):
            fixed = expression(size)
            if isinstance(fixed, (int, sympy.Integer)):
                spec.append(int(fixed))
            else:
                kept = axis < len(before) and same_size(before[axis], size)
                spec.append(0 if kept else None)
        # Beside a size of 0 the runtime cannot tell what -1 stands for, and 0 is "as it was".
        empty = self._may_be_empty or any(expression(s) == 0 for s in plain)
        if spec.count(None) > 1 or (empty and 0 in spec):
            return self.op("Reshape", value, self.shape(plain), allowzero=1 if empty else None)
        final = [-1 if s is None else s for s in spec]
        return self.op("Reshape", value, self.constant(np.array(final, dtype=np.int64)))

    def once(self, key: Any, make: Callable[[], _Made]) -> _Made:
        """What is emitted the first time it is asked for, and shared afterwards."""
        if key not in self._memo:
            self._memo[key] = make()
        made: _Made = self._memo[key]
        return made

    def inline(self, part: Program, inputs: Sequence[ir.Value]) -> None:
        """Emit the calls of a program that stands for the current call, on values of this graph.

        Raises:
            NotLowered: no candidate takes one of them.
        """
        self._values.update(zip(part.graph.find_nodes(op="placeholder"), inputs))
        self._fixed.update(dict.fromkeys(constant_nodes(part), part))
        for node in part.calls():
            if not self.is_emitted(node):
                continue
            try:
                self.emit(node)
            except NotLowered as reason:
                raise NotLowered(f"its part {op_name(node.target)}: {reason}") from reason

    @contextmanager
    def anew(self, results: Sequence[Node], given: Mapping[Node, ir.Value]) -> Iterator[None]:
        """In the block, nodes have values that are emitted there, from given values of others.

        In a branch, so that what only the branch needs is computed there; or for other values than
        those of the program.
        """
        between = self._between(results, given)
        kept = {node: self._values[node] for node in (*between, *given)}
        self._values.update(given)
        try:
            for node in between:
                self.emit(node)
            yield
        finally:
            self._values.update(kept)

    def body(
        self, part: Program, inputs: Sequence[ir.Value]
    ) -> tuple[list[ir.Node], list[ir.Value]]:
        """The nodes of a loop's body, and its outputs: the program's results.

        What is emitted there cannot be read outside, so nothing of it is shared afterwards.

        Raises:
            NotLowered: no candidate takes one of the program's calls.
        """
        with self._inside():
            self.inline(part, inputs)
            made = [self.op("Identity", self.value(n)) for n in part.outputs]
            for value, node in zip(made, part.outputs):
                value.type = ir.TensorType(onnx_dtype(node.meta["val"].dtype))
            return without_unused(self.nodes, made), made

    def branch(self, make: Callable[[], Sequence[ir.Value]]) -> ir.Graph:
        """A branch of an ``If``: what is emitted in the call, and cannot be read outside.

        Args:
            make: emits the branch; returns its results, each made by a node of its own.
        """
        with self._inside():
            made = list(make())
            for value in made:
                dtype = value.meta[DTYPE]
                assert dtype is not None
                value.type = ir.TensorType(dtype)
            nodes = without_unused(self.nodes, made)
            return ir.Graph([], made, nodes=nodes, name=self.unique("branch", start=1))

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """What is emitted in the block has nodes of its own, and is not shared afterwards."""
        outside = self.nodes, self._sizes, self._memo
        self.nodes, self._sizes, self._memo = [], dict(self._sizes), dict(self._memo)
        try:
            yield
        finally:
            self.nodes, self._sizes, self._memo = outside

    # What the lowering calls ----------------------------------------------------------------

    def is_emitted(self, node: Node) -> bool:
        """Whether a call computes tensors, or sizes that only the data know, from inputs."""
        return node not in self._fixed and bool(tensors_of(node) or made_symbols(node))

    def bind(self, node: Node, value: Any) -> None:
        """Say which ONNX value stands for a node of the program."""
        self._values[node] = value

    def name(self, node: Node, emitted_for: Node) -> None:
        """Give the value of a node its name; what else was emitted for it is numbered."""
        value = self._values[node]
        made = value.producer() if isinstance(value, ir.Value) else None
        if made is not None and made.meta[MADE_FROM] is emitted_for:
            value.name = self.unique(node.name)
            made.name = made.outputs[0].name

    def emit(self, node: Node) -> None:
        """Emit one call.

        Raises:
            NotLowered: no candidate takes it.
        """
        if node.target is operator.getitem:
            source, index = cast(tuple[Node, int], node.args)
            self._values[node] = self._values.get(source, Anything())[index]
            return
        _refuse_complex(node)
        outer, self.node = self.node, node
        try:
            self._values[node] = self._emit_call(self, node)
        finally:
            self.node = outer
        self._keep_sizes(node)

    # How it works inside ---------------------------------------------------------------------

    def _between(self, results: Sequence[Node], given: Container[Node]) -> list[Node]:
        """The calls that lead from given nodes to others, in the order of the program."""
        found: set[Node] = set()
        pending = [node for node in results if node not in given]
        while pending:
            node = pending.pop()
            if node.op == "call_function" and node not in found and self.is_emitted(node):
                found.add(node)
                pending += [n for n in node.all_input_nodes if n not in given]
        return sorted(found)

    def _keep_sizes(self, node: Node) -> None:
        """Remember where the sizes that only the data know can be read."""
        made = made_symbols(node)
        if not made:
            return
        value, emitted = node.meta["val"], self._values[node]
        if not tensors_of(node):
            self._sizes[expression(value)] = emitted
            return
        several = isinstance(value, (tuple, list))
        for one, of in zip(value, emitted) if several else [(value, emitted)]:
            for axis, size in enumerate(one.shape):
                self._made.setdefault(expression(size), (of, axis))

    def _initializer(self, node: Node) -> ir.Value:
        """A constant subgraph as one initializer, evaluated when the file is written."""
        if node not in self._fixed:
            raise NotLowered(f"%{node.name} was not lowered")
        value = node.meta["val"]
        lazy = ir.LazyTensor(
            lambda: ir.tensor(evaluate(node, self._fixed[node]).contiguous()),
            dtype=onnx_dtype(value.dtype),
            shape=ir.Shape([int(s) for s in value.shape]),
            name=self.unique(str(node.target) if node.op == "get_attr" else node.name),
        )
        return self._add(lazy, [node])

    def _add(self, tensor: Any, computed_from: Sequence[Node] = ()) -> ir.Value:
        value = ir.Value(
            name=tensor.name,
            const_value=tensor,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(list(tensor.shape)),
        )
        value.meta[COMPUTED_FROM] = computed_from
        self.initializers[tensor.name] = value
        return value

    def unique(self, name: str, start: int = 0) -> str:
        """The name, or with the first free number behind it; numbered in any case from 1 on."""
        count = start
        while (unique := f"{name}.{count}" if count else name) in self._taken:
            count += 1
        self._taken.add(unique)
        return unique

    def _emit_size(self, expr: Any) -> Any:
        source = self._axis_of(expr)
        if source is not None:
            node, axis = source
            return self.op("Shape", self._values[node], start=axis, end=axis + 1)
        if expr in self._made:
            value, axis = self._made[expr]
            return self.op("Shape", value, start=axis, end=axis + 1)
        if (sum_and_rest := self._sum_with(expr)) is not None:
            return self.op("Sub", *map(self._size, sum_and_rest))
        if expr.is_Symbol:
            raise NotLowered("it takes a number that depends on the data")
        value = emit_size(self, expr, self._size)
        if value is None:
            raise NotLowered(f"the size {expr} has no lowering ({type(expr).__name__})")
        return value

    def _size(self, expr: Any) -> ir.Value:
        if expr.is_Integer:
            return self.constant([int(expr)])
        if expr.is_Float:
            return self.constant([float(expr)], torch.float64)
        if expr not in self._sizes:
            self._sizes[expr] = self._emit_size(expr)
        return self._sizes[expr]

    def _axis_of(self, expr: Any) -> tuple[Node, int] | None:
        return next((at for found, at in self._axes() if found == expr), None)

    def _axes(self) -> Iterator[tuple[Any, tuple[Node, int]]]:
        """The dynamic sizes of inputs, and where they can be read."""
        for node in self.program.graph.find_nodes(op="placeholder"):
            for axis, size in enumerate(node.meta["val"].shape):
                if isinstance(size, torch.SymInt) and node not in self._caches:
                    yield size.node.expr, (node, axis)

    def _sum_with(self, symbol: Any) -> tuple[Any, Any] | None:
        """A size of an input that is a sum with this symbol, and the rest of the sum."""
        if not symbol.is_Symbol:
            return None
        found = (expr for expr, _ in self._axes() if expr.is_Add and symbol in expr.args)
        return next(((expr, expr - symbol) for expr in found), None)


class Anything:
    """Stands for the outputs of an operator that could not be lowered, so that all are found."""

    def __getitem__(self, index: int) -> Anything:
        return self


def _plain(size: Size) -> int | torch.SymInt:
    value: int | torch.SymInt = size.meta["val"] if isinstance(size, Node) else size
    return value


def _refuse_complex(node: Node) -> None:
    """ONNX Runtime computes no complex numbers; what stands for them has an axis more.

    Raises:
        NotLowered: the operator takes or gives some.
    """
    values = [n.meta["val"] for n in (node, *node.all_input_nodes)]
    if any(isinstance(v, torch.Tensor) and v.is_complex() for v in values):
        raise NotLowered("it computes with complex numbers")
