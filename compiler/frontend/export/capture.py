"""``torch.export`` into a ``Program``: the only importer of ``torch.export``."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

import strop.compiler.ir.least_squares  # noqa: F401  (types of its results)
from strop.compiler.frontend.coverage import Coverage
from strop.compiler.frontend.export.corners import corners_of, try_corners
from strop.compiler.frontend.export.explain import (
    explain_export_failure,
    first_line,
    needs_one_size,
)
from strop.compiler.frontend.export.exported import to_program
from strop.compiler.frontend.export.functional import make_functional, writes_in_place
from strop.compiler.frontend.export.guards import Corner, Watch
from strop.compiler.frontend.export.naming import by_position, identifiers
from strop.compiler.frontend.export.stand_ins import StandIns
from strop.compiler.frontend.export.stand_ins.causal import masks_as_given
from strop.compiler.frontend.inputs import Signature, resize
from strop.compiler.frontend.original import run_original
from strop.compiler.ir.contract import Dim
from strop.compiler.ir.program import Program
from strop.compiler.ir.recurrent import kept_whole
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.unseen_sizes import sizes_unseen
from strop.compiler.util.errors import UnsupportedError
from strop.compiler.util.quiet import quiet_torch

_PLAIN = 5


@dataclass(frozen=True)
class Traced:
    """A captured module, with what was assumed while it was traced and has still to be tried.

    Attributes:
        program: it runs, with named dims and shared weights.
        corners: sizes at which an assumption does not hold.
        example: inputs at the sizes that were traced.
    """

    program: Program
    corners: Sequence[Corner]
    example: Inputs


def capture(module: nn.Module, signature: Signature, example: Inputs) -> Program:
    """Trace a module, and try what was assumed of its sizes, as ``trace`` and ``try_corners``.

    Raises:
        UnsupportedError: the module cannot be exported, or behaves differently at other sizes.
    """
    traced = trace(module, signature, example)
    try_corners(module, signature, traced.program, traced.corners, traced.example, Coverage())
    return traced.program


def trace(module: nn.Module, signature: Signature, example: Inputs) -> Traced:
    """Export a module into a program.

    Args:
        module: in eval mode, in the target's dtype.
        signature: input names and dynamic dims.
        example: one set of inputs; sizes 0 and 1 on dynamic axes are enlarged first, since
            ``torch.export`` would take them for constants.

    Raises:
        UnsupportedError: the module cannot be exported; the message points into its source.
    """
    example = _plain_example(module, signature, example)
    with by_position(module, signature) as called:
        exported, watch = _export(module, called, example)
        program = to_program(exported, called)
    return Traced(program, corners_of(watch, exported.graph), example)


def _plain_example(module: nn.Module, signature: Signature, example: Inputs) -> Inputs:
    """The example at plain sizes; as it is where the module does not take those."""
    sizes = _plain_sizes(example, signature)
    if sizes == signature.sizes(example):
        return example
    plain = resize(example, signature, sizes)
    try:
        run_original(module, signature, plain)
    except Exception:  # whatever the module raises; where it matters, its own sizes fail as well
        return example
    return plain


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
    """Export, in the first way that works.

    Where a branch leaves part of a dim's range uncovered, on the part that it covers: what happens
    on the rest is tried afterwards; often, as with a slice that gets a single element there,
    nothing else. Then without a look at sizes that are 0 or 1 as traced, which torch takes for
    constants: so a dim is kept of which a fraction is taken. Then with ranges that torch finds by
    itself, which spares its solver for relations of dims. Then through TorchDynamo, which reads
    more of Python.
    """
    first, failure = Watch(signature), None
    try:
        return _export_once(module, signature, example, signature.dims, first), first
    except Exception as error:
        _require_running(module, signature, example)
        failure, watch = error, first
    narrowed = {} if first.fixed() else first.narrowed()
    if narrowed:
        second = Watch(signature)
        try:
            return _export_once(
                module, signature, example, signature.dims | narrowed, second
            ), second
        except Exception as error:
            failure, watch = error, second
    one_size = watch.fixed() or needs_one_size(failure)
    for other in (_unseen,) if one_size else (_unseen, _by_torchs_ranges, _by_dynamo):
        try:
            return other(module, signature, example)
        except Exception as error:  # the first failure says most; torch's differ in kind and class
            failure.add_note(f"{other.__name__}: {first_line(error)}")
    raise UnsupportedError(explain_export_failure(failure, watch)) from failure


def _require_running(module: nn.Module, signature: Signature, example: Inputs) -> None:
    """Check that the module itself runs at the sizes at which it is exported.

    Raises:
        UnsupportedError: it fails there.
    """
    try:
        run_original(module, signature, example)
    except Exception as error:
        sizes = ", ".join(f"{n} = {v}" for n, v in signature.sizes(example).items())
        raise UnsupportedError(
            f"the module itself fails at {sizes or 'its example'} ({first_line(error)}), sizes "
            "within the ranges of `dynamic`. Narrow the ranges to what the module takes."
        ) from error


def _unseen(module: nn.Module, signature: Signature, example: Inputs) -> tuple[Any, Watch]:
    watch = Watch(signature, unseen=True)
    with sizes_unseen():
        return _export_once(module, signature, example, signature.dims, watch), watch


def _by_torchs_ranges(
    module: nn.Module, signature: Signature, example: Inputs
) -> tuple[Any, Watch]:
    watch = Watch(signature)
    exported = _export_once(module, signature, example, signature.dims, watch, own_ranges=True)
    _require_dynamic(_traced_inputs(exported, signature), watch)
    return exported, watch


def _by_dynamo(module: nn.Module, signature: Signature, example: Inputs) -> tuple[Any, Watch]:
    watch = Watch(signature)
    exported = _export_once(module, signature, example, signature.dims, None, strict=True)
    given = _traced_inputs(exported, signature)
    watch.read(given, next(v.fake_mode.shape_env for v in given.values()))
    _require_dynamic(given, watch)
    return exported, watch


def _traced_inputs(exported: Any, signature: Signature) -> dict[str, Any]:
    specs = exported.graph_signature.input_specs
    inputs = [s.arg.name for s in specs if s.kind.name == "USER_INPUT"]
    values = {n.name: n.meta["val"] for n in exported.graph.find_nodes(op="placeholder")}
    return {name: values[of] for name, of in zip(signature.names, inputs)}


def _require_dynamic(given: Mapping[str, Any], watch: Watch) -> None:
    """Check that every dim is still dynamic: these ways of export fix some without a warning.

    Raises:
        ValueError: one became a number.
    """
    sizes = [given[name].shape[axis] for name, axis, _ in watch.signature.extents()]
    if watch.fixed() or not all(isinstance(s, torch.SymInt) for s in sizes):
        raise ValueError("a dim would be fixed")


def _export_once(
    module: nn.Module,
    signature: Signature,
    example: Inputs,
    dims: dict[str, Dim],
    watch: Watch | None,
    own_ranges: bool = False,
    strict: bool = False,
) -> Any:
    dynamic = _dynamic_shapes(module, signature, dims, own_ranges)
    args = tuple(example.values()) if signature.positional else ()
    kwargs = {} if signature.positional else example
    # TorchDynamo would trace the hook and the stand-ins as well.
    handle = module.register_forward_pre_hook(watch, with_kwargs=True) if watch else None
    stand_ins = contextlib.nullcontext() if strict else StandIns()
    try:
        with quiet_torch(), torch.no_grad(), kept_whole(), masks_as_given(), stand_ins:
            exported = torch.export.export(
                module,
                args,
                kwargs,
                dynamic_shapes=dynamic,
                strict=strict,
                # Guards that no range can express are tried at the sizes where they fail.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            return _plain_calls(exported)
    finally:
        if handle is not None:
            handle.remove()


def _plain_calls(exported: Any) -> Any:
    """The program without writes, and without what ``vmap`` leaves, which runs inside it only."""
    graphs = [m.graph for m in exported.graph_module.modules() if isinstance(m, fx.GraphModule)]
    for graph in graphs:
        make_functional(graph)
    if any(writes_in_place(graph) or _holds_vmap(graph) for graph in graphs):
        return exported.run_decompositions({})
    return exported


def _holds_vmap(graph: fx.Graph) -> bool:
    calls = graph.nodes
    return any(getattr(n.target, "__module__", "") == "torch._functorch.predispatch" for n in calls)


def _dynamic_shapes(
    module: nn.Module, signature: Signature, dims: dict[str, Dim], own_ranges: bool
) -> Any:
    known = identifiers(signature)
    made = {
        name: torch.export.Dim.AUTO if own_ranges else _export_dim(dim, known[name])
        for name, dim in dims.items()
    }
    shapes = {
        n: {
            # Torch finds by itself of which dims a size is the sum.
            axis: made[extent[0]] if len(extent) == 1 else torch.export.Dim.AUTO
            for axis, extent in signature.axes.get(n, {}).items()
        }
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
