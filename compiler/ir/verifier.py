"""The verifier: the rules of the IR, each a short function that yields its violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.contract import DTYPE_NAMES
from strop.compiler.ir.printer import describe
from strop.compiler.ir.program import Program
from strop.compiler.util.errors import VerifyError

Invariant = Callable[[Program], Iterator[str]]


def _values_are_typed(program: Program) -> Iterator[str]:
    for node in program.graph.nodes:
        if node.op in ("call_function", "placeholder", "get_attr") and "val" not in node.meta:
            yield f"{describe(node)} has no meta['val']; the code that creates a node must set it"


def _defined_before_used(program: Program) -> Iterator[str]:
    seen: set[Node] = set()
    for node in program.graph.nodes:
        for used in node.all_input_nodes:
            if used not in seen:
                yield f"{describe(node)} uses %{used.name}, which is defined later or not at all"
        seen.add(node)


def _weights_exist(program: Program) -> Iterator[str]:
    for node in program.graph.find_nodes(op="get_attr"):
        weight = program.weights.get(str(node.target))
        if weight is None:
            yield f"%{node.name} names the weight '{node.target}', which the program lacks"
        elif tuple(weight.shape) != tuple(node.meta["val"].shape):
            yield f"weight '{node.target}' is {tuple(weight.shape)}, its node says otherwise"


def _only_pure_calls(program: Program) -> Iterator[str]:
    for node in program.graph.nodes:
        if node.op in ("call_method", "call_module"):
            yield f"%{node.name} is a {node.op}; the IR holds operator calls only"
        elif isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            yield f"{describe(node)} writes to its input; the IR is functional"


def _contract_holds(program: Program) -> Iterator[str]:
    names = [str(n.target) for n in program.graph.find_nodes(op="placeholder")]
    expected = [spec.name for spec in program.contract.inputs]
    if names != expected:
        yield f"inputs are {names}, the contract says {expected}"
    if len(program.outputs) != len(program.contract.outputs):
        yield f"{len(program.outputs)} outputs, the contract says {len(program.contract.outputs)}"
    for spec, node in zip(program.contract.outputs, program.outputs):
        value = node.meta["val"]
        if isinstance(value, torch.Tensor) and DTYPE_NAMES[value.dtype] != spec.dtype:
            yield f"output '{spec.name}' became {value.dtype}, the contract says {spec.dtype}"
        elif len(value.shape) != len(spec.shape):
            yield f"output '{spec.name}' became rank {len(value.shape)}, not {len(spec.shape)}"


INVARIANTS: tuple[Invariant, ...] = (
    _values_are_typed,
    _defined_before_used,
    _weights_exist,
    _only_pure_calls,
    _contract_holds,
)


def versions_of(program: Program) -> dict[str, int]:
    """Torch's version counter of each weight; see ``verify_unchanged``."""
    return {n: t._version for n, t in program.weights.items() if not t.is_inference()}


def verify_unchanged(program: Program, versions: Mapping[str, int]) -> None:
    """Check that no weight of a program was written to since ``versions`` was taken.

    Raises:
        VerifyError: one was written to in place. Writes to tensors made in ``torch.inference_mode``
            and writes through ``Tensor.data`` do not change the counter and are not detected.
    """
    for name, count in versions.items():
        if program.weights[name]._version != count:
            raise VerifyError(
                f"it writes to the weight '{name}' in place, which programs from before it share; "
                "make a new tensor and give it by Program.set_weight"
            )


def verify(program: Program) -> None:
    """Check a program against the rules of the IR, in time linear in its nodes.

    Raises:
        VerifyError: with every violation of the first rule that is broken; later rules build on
            the earlier ones.
    """
    for invariant in INVARIANTS:
        violations = list(invariant(program))
        if violations:
            raise VerifyError("\n  ".join(["the program is not valid:", *violations]))
