"""``torch.export`` into a ``Program``: the only importer of ``torch.export``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from strop.compiler.errors import UnsupportedError
from strop.compiler.exported import to_program
from strop.compiler.functional import make_functional, writes_in_place
from strop.compiler.guards import Corner, Watch
from strop.compiler.inputs import Inputs, Signature, resize
from strop.compiler.naming import by_position, identifiers, own_names
from strop.compiler.original import run_original
from strop.compiler.program import Dim, Program
from strop.compiler.quiet import quiet_torch
from strop.compiler.recurrent import kept_whole

_PLAIN = 5


def capture(module: nn.Module, signature: Signature, example: Inputs) -> Program:
    """Export a module into a program that runs, with named dims and shared weights.

    Args:
        module: in eval mode, in the target's dtype.
        signature: input names and dynamic dims.
        example: one set of inputs; sizes 0 and 1 on dynamic axes are enlarged first, since
            ``torch.export`` would take them for constants.

    Raises:
        UnsupportedError: the module cannot be exported; the message points into its source.
    """
    example = resize(example, signature, _plain_sizes(example, signature))
    with by_position(module, signature) as called:
        exported, watch = _export(module, called, example)
        program = to_program(exported, called)
        _try_corners(module, program, watch, exported.graph, example)
    return program


def _plain_sizes(example: Inputs, signature: Signature) -> dict[str, int]:
    """The example's sizes, with small ones and accidental equalities avoided where ranges allow.

    ``torch.export`` takes sizes of 0 and 1 for constants, those of ``x[1:]`` included, and two
    dims of one size are not always two. Nothing is computed at these sizes.
    """
    given = signature.sizes(example)
    kept = {size: name for name, size in reversed(given.items()) if size >= _PLAIN}
    chosen = {name: size for size, name in kept.items()}
    for name, size in given.items():
        if name in chosen:
            continue
        dim = signature.dims[name]
        high = dim.max if dim.max is not None else max(size, _PLAIN) + len(signature.dims)
        options = [size, *range(size + 1, high + 1), *range(size - 1, dim.min - 1, -1)]
        new = [n for n in options if n not in chosen.values()] or options
        fitting = [n for n in new if n >= _PLAIN] or [n for n in new if n >= 2]
        chosen[name] = fitting[0] if fitting else size
    return chosen


def _export(module: nn.Module, signature: Signature, example: Inputs) -> tuple[Any, Watch]:
    """Export; where a branch leaves part of a dim's range uncovered, on the part it covers.

    What happens on the rest is tried afterwards: often, as with a slice that gets a single
    element there, nothing else.
    """
    first = Watch(signature)
    try:
        return _export_once(module, signature, example, signature.dims, first), first
    except Exception as error:
        narrowed = first.narrowed()
        if first.fixed() or not narrowed:
            raise UnsupportedError(explain_export_failure(error, first)) from error
    second = Watch(signature)
    try:
        return _export_once(module, signature, example, signature.dims | narrowed, second), second
    except Exception as error:
        raise UnsupportedError(explain_export_failure(error, second)) from error


def _export_once(
    module: nn.Module,
    signature: Signature,
    example: Inputs,
    dims: dict[str, Dim],
    watch: Watch,
) -> Any:
    dynamic = _dynamic_shapes(module, signature, dims)
    args = tuple(example.values()) if signature.positional else ()
    kwargs = {} if signature.positional else example
    handle = module.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        with quiet_torch(), torch.no_grad(), kept_whole():
            exported = torch.export.export(
                module,
                args,
                kwargs,
                dynamic_shapes=dynamic,
                strict=False,
                # Guards that no range can express are tried at the sizes where they fail.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            return _without_writes(exported)
    finally:
        handle.remove()


def _without_writes(exported: Any) -> Any:
    graphs = [m.graph for m in exported.graph_module.modules() if isinstance(m, fx.GraphModule)]
    for graph in graphs:
        make_functional(graph)
    if any(writes_in_place(graph) for graph in graphs):
        return exported.run_decompositions({})
    return exported


def _dynamic_shapes(module: nn.Module, signature: Signature, dims: dict[str, Dim]) -> Any:
    known = identifiers(signature)
    made = {name: _export_dim(dim, known[name]) for name, dim in dims.items()}
    shapes = {
        n: {axis: made[dim] for axis, dim in signature.axes.get(n, {}).items()}
        for n in signature.names
    }
    if not signature.positional:
        return shapes
    rest = any(p.kind is p.VAR_POSITIONAL for p in _parameters(module).values())
    return _fold_var_positional(module, shapes) if rest else tuple(shapes.values())


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(module.forward).parameters


def _fold_var_positional(module: nn.Module, shapes: dict[str, Any]) -> Any:
    """Shapes of a module with ``*args``: a tuple in the place of that parameter."""
    before = list(_parameters(module).values())
    count = next(i for i, p in enumerate(before) if p.kind is p.VAR_POSITIONAL)
    values = list(shapes.values())
    return (*values[:count], tuple(values[count:]))


def _export_dim(dim: Dim, identifier: str) -> Any:
    if dim.max is not None and dim.min == dim.max:
        return dim.min
    return torch.export.Dim(identifier, min=dim.min, max=dim.max)


def _try_corners(
    module: nn.Module, program: Program, watch: Watch, graph: fx.Graph, example: Inputs
) -> None:
    """Compare program and module where an assumption made in tracing does not hold.

    Raises:
        UnsupportedError: they differ: the model takes another path at those sizes.
    """
    signature = watch.signature
    ends = [
        Corner(signature.sizes(example) | {name: end}, watch.place(name))
        for name in watch.narrowed()
        for end in (signature.dims[name].min, signature.dims[name].max)
        if end is not None
    ]
    for corner in [*watch.corners(graph, signature.sizes(example)), *ends]:
        inputs = resize(example, signature, corner.sizes)
        different = _difference(module, program, signature, inputs)
        if different:
            sizes = ", ".join(f"{n} = {v}" for n, v in corner.sizes.items())
            traced = ", ".join(f"{n} = {v}" for n, v in signature.sizes(example).items())
            raise UnsupportedError(
                f"the model takes another path at {sizes} than at {traced}{corner.place}: "
                f"{different}. Narrow the ranges in `dynamic`, or remove the branch on sizes."
            )


def _difference(
    module: nn.Module, program: Program, signature: Signature, inputs: Inputs
) -> str | None:
    with torch.no_grad():
        try:
            expected = list(run_original(module, signature, inputs).values())
        except Exception as error:
            own = " on inputs of inputs_at" if signature.inputs_at else " on the resized example"
            return f"the module itself fails there{own} ({_first_lines(str(error), 1)})"
        try:
            got = program.run(**inputs)
        except Exception as error:
            return f"the captured graph fails there ({_first_lines(str(error), 1)})"
    for spec, a, b in zip(program.contract.outputs, got, expected):
        if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True):
            return f"'{spec.name}' differs there"
    return None


def explain_export_failure(error: Exception, watch: Watch) -> str:
    """One or two sentences for the user, with the place in their source."""
    text = own_names(str(error), watch.signature)
    where = _place_in_source(error)
    fixed = watch.fixed()
    if fixed:
        return "\n".join(_explain_fixed(n, str(v), p or where) for n, (v, p) in fixed.items())
    if "Constraints violated" in text:
        return (
            f"the dynamic dims do not fit the model{where}: {_first_lines(text, 6)}\n"
            "Change the names or ranges in `dynamic`."
        )
    if "Specializations unexpectedly required" in text:
        found = re.search(r"generated for (.+?) = .*?specialized value of (\d+)", text)
        if found:
            return _explain_fixed(found[1], found[2], where)
    if "data-dependent" in text or "GuardOnDataDependentSymNode" in type(error).__name__:
        return (
            f"the model decides on a tensor's value{where}, which a graph cannot do: "
            f"{_first_lines(text, 2)}\nReplace the `if` on a tensor by `torch.where`, or take the "
            "decision out of `forward`."
        )
    return f"torch.export could not capture the model{where}: {_first_lines(text, 3)}"


def _explain_fixed(name: str, value: str, place: str) -> str:
    if value.isdigit():
        return (
            f"dim '{name}' is declared dynamic, but the model works with one size only ({value})"
            f"{place}. Either drop it from `dynamic`, or change the code so that it does not "
            "depend on the size."
        )
    return (
        f"dim '{name}' is declared on its own, but the model needs it to be {value}{place}. Dims "
        "that are equal take one name in `dynamic`; a multiple cannot be declared."
    )


def _place_in_source(error: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if "/torch/" not in f.filename and "/strop/" not in f.filename]
    mine = [f for f in mine if not f.filename.endswith("compiler/capture.py")]
    mine = [f for f in mine if f.name == "forward"] or mine
    if mine and mine[-1].name == "forward":
        return f" at {mine[-1].filename}:{mine[-1].lineno} (`{mine[-1].line}`)"
    return ""


def _first_lines(text: str, count: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:count])
