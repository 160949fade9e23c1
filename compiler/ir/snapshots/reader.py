"""Read an untrusted snapshot as a program: checked as data first, then typed on fake tensors.

Nothing in a snapshot is code. It names operators of a list, sizes are numbers or names of dims, and
weights are safetensors in the folder beside it. While it is read no tensor is computed, and no
value may be larger than a program of this kind needs.
"""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.fx.node import Node
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

from strop.compiler.ir.builder import fake_result
from strop.compiler.ir.contract import DTYPE_NAMES, Contract, Dim, Padded, Stored, TensorSpec
from strop.compiler.ir.data_sizes import made_symbols
from strop.compiler.ir.nodes import arguments, expression
from strop.compiler.ir.program import Origin, Program
from strop.compiler.ir.running import Inputs, in_contract
from strop.compiler.ir.snapshots.allowed import allowed_operator
from strop.compiler.ir.snapshots.schema import (
    ContractValues,
    NodeValues,
    OriginValues,
    SnapshotValues,
    SpecValues,
    SymbolValues,
)
from strop.compiler.ir.snapshots.size_arithmetic import (
    FUNCTIONS,
    Number,
    require_bounded,
    require_short_sizes,
    stand_in,
)
from strop.compiler.ir.snapshots.weight_store import WeightStore, read_tensors
from strop.compiler.ir.snapshots.writer import INPUTS, WEIGHTS
from strop.compiler.ir.verifier import verify
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import validated
from strop.compiler.util.files.reading import read_json
from strop.compiler.util.operators import require_kinds
from strop.compiler.util.quiet import quiet_torch
from strop.compiler.util.visible import visible

# Results of one call that splits a tensor.
MOST_PIECES = 4096
# Bytes that all values together may have at the sizes at which the program was traced, which are
# small; and how many more for each byte of a weight, which the snapshot had to store.
MOST_BYTES = 4 << 30
PER_WEIGHT_BYTE = 16
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_TORCH: dict[str, Any] = {
    str(v).removeprefix("torch."): v
    for v in (
        torch.contiguous_format, torch.preserve_format, torch.channels_last,
        torch.channels_last_3d, torch.strided,
    )
}  # fmt: skip


def load_program(path: Path) -> Program:
    """Read a program; every value gets its type anew, by running the graph on fake tensors.

    Raises:
        UsageError: the file is no snapshot, was damaged, calls what it may not, or computes values
            that are too large.
    """
    values = validated(SnapshotValues, read_json(path, "the snapshot"), f"the snapshot {path}")
    try:
        with quiet_torch():  # it tells of calls that do not fit by itself, with a trace
            program = _Reader(values, WeightStore(path.parent / WEIGHTS)).program()
        verify(program)
    except Exception as error:  # torch and sympy raise anything where no capture made the graph
        said = str(error).strip().splitlines()
        kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
        raise UsageError(
            f"the snapshot {path} is not a program, or was damaged: {kind}{said[0] if said else ''}"
        ) from error
    return program


def load_inputs(folder: Path, program: Program) -> Inputs:
    """Read the inputs beside snapshots, for a program of theirs.

    Raises:
        UsageError: there are none, they are damaged, or the program takes others.
    """
    found = read_tensors(folder / INPUTS, "the inputs of the snapshot,", within=folder)
    if set(found) != {spec.name for spec in program.contract.inputs}:
        raise UsageError(f"{folder / INPUTS} holds other inputs than the program takes")
    known: dict[str, int] = {}
    taken = in_contract(found, program.contract)
    for spec in program.contract.inputs:
        tensor = taken[spec.name]
        sizes = [known.setdefault(w, n) if isinstance(w, str) else w
                 for w, n in zip(spec.shape, tensor.shape)]  # fmt: skip
        same = DTYPE_NAMES[tensor.dtype] == spec.dtype and tensor.dim() == len(spec.shape)
        if not same or sizes != list(tensor.shape):
            raise UsageError(
                f"{folder / INPUTS} holds '{spec.name}' as {tensor.dtype} {list(tensor.shape)}, "
                f"the program takes {spec.dtype} {list(spec.shape)}"
            )
    return found


class _Reader:
    """Builds a program from a snapshot's values."""

    def __init__(self, values: SnapshotValues, store: WeightStore) -> None:
        self.values = values
        self.store = store
        self.mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        self.sizes = {name: self._size(symbol) for name, symbol in values.symbols.items()}
        self.nodes: dict[str, Node] = {}
        self.numbers: dict[Node, Number] = {}
        self.budget = MOST_BYTES

    def program(self) -> Program:
        program = Program(fx.Graph(), self._weights(), _contract(self.values.contract))
        program.symbols = {
            str(expression(size)): self.values.symbols[name].name
            for name, size in self.sizes.items()
        }
        program.origins = {name: _origin(o) for name, o in self.values.origins.items()}
        *calls, last = self.values.nodes
        env = self.mode.shape_env
        assert env is not None
        # What held when the program was captured is known: nothing is concluded from the sizes
        # that the symbols have here.
        with env.suppress_guards():
            for values in calls:
                self._add(values, program)
        self._end(last, program)
        return program

    def _weights(self) -> dict[str, torch.Tensor]:
        found = {name: self.store.get(d) for name, d in self.values.weights.items()}
        for name in self.values.trained:
            found[name] = torch.nn.Parameter(found[name])
        return found

    def _size(self, symbol: SymbolValues) -> torch.SymInt:
        from torch._dynamo.source import ConstantSource

        high = math.inf if symbol.max is None else symbol.max
        if not symbol.min <= symbol.hint <= high:
            raise UsageError(f"the dim '{symbol.name}' has a size outside its range")
        env = self.mode.shape_env
        assert env is not None
        source = ConstantSource(symbol.name)
        made = env.create_symbol(symbol.hint, source, dynamic_dim=DimDynamic.DYNAMIC)
        env.var_to_range[made] = ValueRanges(symbol.min, high)
        size = env.create_symintnode(made, hint=symbol.hint, source=source)
        assert isinstance(size, torch.SymInt)
        return size

    def _extent(self, text: str) -> Any:
        """A size of an input: a symbol, or a sum of symbols and numbers, ``2*s0 + s1 + 1``."""
        if text.isdecimal():
            raise UsageError(f"the size '{text}' is written as text")
        total: Any = 0
        for term in text.split(" + "):
            *times, name = term.split("*")
            factor = math.prod(map(int, times))
            total = total + factor * (int(name) if name.isdecimal() else self.sizes[name])
        return total

    def _add(self, values: NodeValues, program: Program) -> None:
        if values.op == "output":
            raise UsageError("it returns before its last node")
        args = tuple(self._decode(a) for a in values.args)
        kwargs = {k: self._decode(v) for k, v in values.kwargs.items()}
        target = _target(values)
        node = program.graph.create_node(values.op, target, args, kwargs, name=values.name)
        if node.name != values.name:
            raise UsageError(f"it has two nodes named {values.name}, or that is no name for one")
        node.meta = _meta(values)
        node.meta["val"] = self._value(values, program, node)
        self._require_small(node)
        made = [str(symbol) for symbol in made_symbols(node)]
        if len(made) != len(values.makes):
            raise UsageError(f"%{node.name} makes other sizes from data than it names")
        program.symbols |= dict(zip(made, values.makes))
        self.nodes[node.name] = node

    def _end(self, values: NodeValues, program: Program) -> None:
        results = [self._decode(a) for a in values.args]
        if values.op != "output" or len(results) != 1 or not isinstance(results[0], list):
            raise UsageError("its last node returns nothing")
        if not all(isinstance(r, Node) for r in results[0]):
            raise UsageError("it returns something that is not a value")
        program.graph.output(tuple(results[0]))

    def _value(self, values: NodeValues, program: Program, node: Node) -> Any:
        if node.op == "get_attr":
            if values.target not in program.weights:
                raise UsageError(f"%{node.name} names the weight '{values.target}', which it lacks")
            return self.mode.from_tensor(program.weights[values.target], static_shapes=True)
        if node.op == "placeholder":
            if values.dtype is None:
                raise UsageError(f"the input %{node.name} has no dtype")
            shape = [s if isinstance(s, int) else self._extent(s) for s in values.shape]
            with self.mode:
                return torch.empty(shape, dtype=_DTYPES[values.dtype])
        if isinstance(node.target, OpOverload):
            require_kinds(node.target, node.args, node.kwargs)
            _require_few_pieces(node)
        elif node.target is operator.getitem:
            _require_element(node)
        else:
            self.numbers[node] = require_bounded(node.target, node.args, self.numbers)
        return fake_result(node.target, node.args, node.kwargs, self.mode)

    def _require_small(self, node: Node) -> None:
        """Check a value against its bounds, and remember the number that stands for a size."""
        for value in pytree.tree_leaves(node.meta["val"]):
            if isinstance(value, torch.Tensor):
                require_short_sizes(value)
                self._spend(node, value)
        number = stand_in(node.meta["val"])
        if number is not None:
            self.numbers.setdefault(node, number)

    def _spend(self, node: Node, tensor: torch.Tensor) -> None:
        size = math.prod(int(stand_in(s) or 0) for s in tensor.shape) * tensor.dtype.itemsize
        self.budget += PER_WEIGHT_BYTE * size if node.op == "get_attr" else -size
        if self.budget < 0:
            raise UsageError(f"the values up to %{node.name} are too large together")

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decode(v) for v in value]
        if not isinstance(value, dict):
            return value
        if len(value) != 1:
            raise UsageError("an argument is of no known kind")
        ((kind, content),) = value.items()
        if kind == "node" and isinstance(content, str) and content in self.nodes:
            return self.nodes[content]
        return _literal(kind, content)


def _literal(kind: str, content: Any) -> Any:
    """An argument that JSON has no form for; ``["cpu"]`` and the like are no such text."""
    known: dict[str, dict[str, Any]] = {
        "dtype": _DTYPES,
        "device": {"cpu": torch.device("cpu")},
        "float": {"nan": math.nan, "inf": math.inf, "-inf": -math.inf},
        "torch": _TORCH,
    }
    if not isinstance(content, str) or content not in known.get(kind, {}):
        raise UsageError(f"the argument {kind} = {content!r} is not known here")
    return known[kind][content]


def _target(values: NodeValues) -> Any:
    if values.op != "call_function":
        return values.target
    return FUNCTIONS.get(values.target) or allowed_operator(values.target)


def _require_element(node: Node) -> None:
    """``operator.getitem`` picks one of several results; it does nothing else."""
    of, *place = node.args
    results = of.meta["val"] if isinstance(of, Node) else None
    if not isinstance(results, (list, tuple)) or [type(p) for p in place] != [int]:
        raise UsageError(f"%{node.name} picks a result where there are none")


def _require_few_pieces(node: Node) -> None:
    """Refuse a call that would split a tensor into too many pieces, before it makes them."""
    schema = node.target._schema  # type: ignore[union-attr]
    if [str(r.type) for r in schema.returns] != ["List[Tensor]"]:
        return
    given = arguments(node)
    whole = next(iter(given.values()))
    pieces = given.get("sections", given.get("chunks"))
    if pieces is None and isinstance(whole, Node):
        axis, each = given.get("dim", 0), given.get("split_size")
        length = stand_in(whole.meta["val"].shape[axis]) or 0
        pieces = length / max(int(stand_in(_value(each)) or 1), 1)
    if isinstance(pieces, (int, float)) and pieces > MOST_PIECES:
        raise UsageError(f"%{node.name} splits a value into more than {MOST_PIECES} pieces")


def _value(argument: Any) -> Any:
    return argument.meta["val"] if isinstance(argument, Node) else argument


def _meta(values: NodeValues) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if values.source is not None:
        file, _, line = visible(values.source).rpartition(":")
        meta["stack_trace"] = f'File "{file}", line {line}'
    if values.modules:
        meta["nn_module_stack"] = {str(i): tuple(m) for i, m in enumerate(values.modules)}
    if values.made_by is not None:
        meta["made_by"] = values.made_by
    return meta


def _origin(values: OriginValues) -> Origin:
    kept = {int(axis): tuple(positions) for axis, positions in values.kept.items()}
    return Origin(tuple(values.sources), values.made_by, kept)


def _contract(values: ContractValues) -> Contract:
    return Contract(
        tuple(_spec(s) for s in values.inputs),
        tuple(_spec(s) for s in values.outputs),
        tuple(Dim(d.name, d.min, d.max) for d in values.dims),
    )


def _spec(values: SpecValues) -> TensorSpec:
    padded = None if values.padded is None else Padded(values.padded.mask, values.padded.value)
    kept = values.stored
    stored = None if kept is None else Stored(kept.of, tuple(kept.scales))
    return TensorSpec(values.name, values.dtype, tuple(values.shape), values.tap, padded, stored)
