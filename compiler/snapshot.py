"""A program on disk: its graph as JSON, each weight once under the hash of its content.

Nothing in a snapshot is code. A graph names operators that torch already knows, sizes are
numbers or names of dims, and weights are safetensors: a snapshot from a stranger can be read.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.fx.node import Node
from torch.utils._sympy.value_ranges import ValueRanges

import strop.compiler.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.build_nodes import fake_result
from strop.compiler.data_sizes import made_symbols
from strop.compiler.errors import UsageError
from strop.compiler.inputs import Inputs
from strop.compiler.program import (
    DTYPE_NAMES,
    Contract,
    Dim,
    Origin,
    Program,
    TensorSpec,
    expression,
)
from strop.compiler.text import source_line

FORMAT = 1
WEIGHTS = "weights"
INPUTS = "inputs.safetensors"
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
# Arithmetic on sizes, and picking one of several results.
_FUNCTIONS: dict[str, Any] = {
    **{
        f"operator.{f.__name__}": f
        for f in (
            operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv,
            operator.mod, operator.neg, operator.pow, operator.getitem, operator.eq, operator.ne,
            operator.lt, operator.le, operator.gt, operator.ge, operator.and_, operator.or_,
        )
    },
    **{
        f"torch.{f.__name__}": f
        for f in (torch.sym_float, torch.sym_int, torch.sym_max, torch.sym_min, torch.sym_not,
                  torch.sym_ite, torch.sym_sum)
    },
    **{f"math.{f.__name__}": f for f in (math.ceil, math.floor, math.trunc, round)},
}  # fmt: skip
_TORCH: dict[str, Any] = {
    str(v).removeprefix("torch."): v
    for v in (
        torch.contiguous_format, torch.preserve_format, torch.channels_last,
        torch.channels_last_3d, torch.strided,
    )
}  # fmt: skip
_NAMES = {f: name for name, f in _FUNCTIONS.items()}
# The operators of torch's that open a file.
_FORBIDDEN = ("aten.from_file", "aten.save")


class WeightStore:
    """Tensors in a folder, each written once under the hash of its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[int, tuple[torch.Tensor, str]] = {}

    def put(self, tensor: torch.Tensor) -> str:
        """Write a tensor if its content is new; returns its hash."""
        if id(tensor) not in self._known:
            # The tensor is kept with its hash: an id belongs to a living object only.
            self._known[id(tensor)] = (tensor, self._write(tensor.detach().contiguous()))
        return self._known[id(tensor)][1]

    def get(self, digest: str) -> torch.Tensor:
        """Read a tensor.

        Raises:
            UsageError: it is not there, or is not what its name says.
        """
        path = self._path(digest)
        if not digest.isalnum() or not path.is_file():
            raise UsageError(f"{self.folder} lacks the weight {digest}")
        tensor = _read(path)["weight"]
        if _digest(tensor) != digest:
            raise UsageError(f"{path} has changed since it was written")
        return tensor

    def _write(self, tensor: torch.Tensor) -> str:
        digest = _digest(tensor)
        path = self._path(digest)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"weight": tensor}, path)
        return digest

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.safetensors"


def _digest(tensor: torch.Tensor) -> str:
    kind = f"{DTYPE_NAMES[tensor.dtype]}{list(tensor.shape)}".encode()
    flat = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0)
    return hashlib.sha256(kind + flat.numpy().tobytes()).hexdigest()[:32]


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
    save_file({n: t.contiguous() for n, t in inputs.items()}, folder / INPUTS)


def load_inputs(folder: Path) -> Inputs:
    """Read the inputs beside snapshots.

    Raises:
        UsageError: there are none, or they are damaged.
    """
    if not (folder / INPUTS).is_file():
        raise UsageError(f"{folder} has no {INPUTS} to run its programs on")
    return _read(folder / INPUTS)


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged: {error}") from error
    return found


def _symbols(program: Program) -> dict[str, dict[str, Any]]:
    """Every symbol of the inputs' sizes: the user's name, the range, and the size traced with."""
    found: dict[str, dict[str, Any]] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        for size in node.meta["val"].shape:
            if isinstance(size, torch.SymInt):
                name = str(expression(size))
                bounds = size.node.shape_env.bound_sympy(expression(size))
                found[name] = {
                    "name": program.symbols.get(name, name),
                    "min": int(bounds.lower),
                    "max": int(bounds.upper) if bounds.upper.is_Integer else None,
                    "hint": int(size.node.hint),
                }
    return found


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
    if node.target in _NAMES:
        return _NAMES[node.target]
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


def load_program(path: Path) -> Program:
    """Read a program; every value gets its type anew, by running the graph on fake tensors.

    Raises:
        UsageError: the file is no snapshot, was damaged, or names an operator that is not here.
    """
    try:
        values = json.loads(path.read_text())
        if values["strop_snapshot"] != FORMAT:
            raise UsageError(f"{path} has snapshot format {values['strop_snapshot']}")
        return _Reader(values, WeightStore(path.parent / WEIGHTS)).program()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"{path} is no snapshot of a program, or was damaged "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from error


class _Reader:
    """Builds a program from what ``save_program`` wrote."""

    def __init__(self, values: dict[str, Any], store: WeightStore) -> None:
        self.values = values
        self.store = store
        self.mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        self.sizes = {name: self._size(of) for name, of in values["symbols"].items()}
        self.nodes: dict[str, Node] = {}

    def program(self) -> Program:
        program = Program(fx.Graph(), self._weights(), _contract(self.values["contract"]))
        program.symbols = {
            str(expression(size)): self.values["symbols"][name]["name"]
            for name, size in self.sizes.items()
        }
        program.origins = {
            n: Origin(tuple(o["sources"]), o["made_by"]) for n, o in self.values["origins"].items()
        }
        env = self.mode.shape_env
        assert env is not None
        # What held when the program was captured is known: nothing is concluded from the sizes
        # that the symbols have here.
        with env.suppress_guards():
            for values in self.values["nodes"]:
                self._add(values, program)
        return program

    def _weights(self) -> dict[str, torch.Tensor]:
        found = {name: self.store.get(d) for name, d in self.values["weights"].items()}
        for name in self.values["trained"]:
            found[name] = torch.nn.Parameter(found[name])
        return found

    def _size(self, symbol: dict[str, Any]) -> torch.SymInt:
        from torch._dynamo.source import ConstantSource

        env = self.mode.shape_env
        assert env is not None
        source = ConstantSource(symbol["name"])
        made = env.create_symbol(symbol["hint"], source, dynamic_dim=DimDynamic.DYNAMIC)
        high = math.inf if symbol["max"] is None else symbol["max"]
        env.var_to_range[made] = ValueRanges(symbol["min"], high)
        size = env.create_symintnode(made, hint=symbol["hint"], source=source)
        assert isinstance(size, torch.SymInt)
        return size

    def _add(self, values: dict[str, Any], program: Program) -> None:
        op, target = values["op"], _target(values)
        args = tuple(self._decode(a) for a in values.get("args", ()))
        kwargs = {k: self._decode(v) for k, v in values.get("kwargs", {}).items()}
        if op == "output":
            program.graph.output(tuple(args[0]))
            return
        node = program.graph.create_node(op, target, args, kwargs, name=values["name"])
        if node.name != values["name"]:
            raise UsageError(f"the snapshot has two nodes named {values['name']}")
        node.meta = _meta(values) | {"val": self._value(values, program, node)}
        made = map(str, made_symbols(node))
        program.symbols |= dict(zip(made, values.get("makes", ()), strict=True))
        self.nodes[node.name] = node

    def _value(self, values: dict[str, Any], program: Program, node: Node) -> Any:
        if node.op == "get_attr":
            weight = program.weights[str(node.target)]
            return self.mode.from_tensor(weight, static_shapes=True)
        if node.op == "placeholder":
            shape = [s if isinstance(s, int) else self.sizes[s] for s in values["shape"]]
            with self.mode:
                return torch.empty(shape, dtype=_DTYPES[values["dtype"]])
        return fake_result(node.target, node.args, node.kwargs, self.mode)

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decode(v) for v in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        return _DECODERS[kind](self, content)


_DECODERS: dict[str, Any] = {
    "node": lambda reader, name: reader.nodes[name],
    "dtype": lambda reader, name: _DTYPES[name],
    "device": lambda reader, name: torch.device(name),
    "float": lambda reader, text: float(text),
    "torch": lambda reader, name: _TORCH[name],
}


def _target(values: dict[str, Any]) -> Any:
    name = values["target"]
    if values["op"] not in ("call_function", "get_attr", "placeholder", "output"):
        raise UsageError(f"the snapshot has a node of kind '{values['op']}'")
    if values["op"] != "call_function" or name in _FUNCTIONS:
        return _FUNCTIONS.get(name, name)
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.rpartition(".")
    target = getattr(getattr(getattr(torch.ops, namespace), operation, None), overload, None)
    if (
        not isinstance(target, OpOverload)
        or f"{namespace}.{operation}" in _FORBIDDEN
        or not torch._C._dispatch_has_kernel(target.name())
    ):
        # What the dispatcher does not know is TorchScript's, and does more than compute.
        raise UsageError(f"the snapshot calls {name}, which is no operator here that may be called")
    return target


def _meta(values: dict[str, Any]) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if "source" in values:
        file, _, line = values["source"].rpartition(":")
        meta["stack_trace"] = f'File "{file}", line {line}'
    if "modules" in values:
        meta["nn_module_stack"] = {str(i): tuple(m) for i, m in enumerate(values["modules"])}
    if "made_by" in values:
        meta["made_by"] = values["made_by"]
    return meta


def _contract(values: dict[str, Any]) -> Contract:
    return Contract(
        tuple(_spec(s) for s in values["inputs"]),
        tuple(_spec(s) for s in values["outputs"]),
        tuple(Dim(**d) for d in values["dims"]),
    )


def _spec(values: dict[str, Any]) -> TensorSpec:
    return TensorSpec(values["name"], values["dtype"], tuple(values["shape"]))
