"""``torch.export`` into a ``Program``: the only importer of ``torch.export``."""

from __future__ import annotations

import copy
import inspect
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.errors import UnsupportedError
from strop.compiler.functional import make_functional, writes_in_place
from strop.compiler.guards import Corner, Watch
from strop.compiler.inputs import Inputs, Signature, resize
from strop.compiler.program import DTYPE_NAMES, Contract, Dim, Origin, Program, TensorSpec
from strop.compiler.quiet import quiet_torch
from strop.compiler.text import size_text, source_line

_PLAIN = 5


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def output_leaves(result: Any, wanted: Callable[[Any], bool] = _is_tensor) -> dict[str, Any]:
    """Flatten a module's result into named tensors; ``None`` leaves are dropped.

    Dict and dataclass fields give their names, positions give ``output_0``; nested ones are
    joined by dots. Leaves that are not tensors are dropped too: a runtime returns tensors.
    """
    if wanted(result):
        return {"output": result}
    leaves, _ = pytree.tree_flatten_with_path(result)
    named = {}
    for path, leaf in leaves:
        if wanted(leaf):
            named[_path_name(path)] = leaf
    return named


def run_original(
    module: nn.Module, signature: Signature, inputs: Inputs
) -> dict[str, torch.Tensor]:
    """What the module gives, by output name: the reference for everything built from it.

    The fused kernels of ``nn.MultiheadAttention`` are off: they drop padded positions or write
    zeros there, which the module's own formulas, and so the graph, do not.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return output_leaves(signature.call(module, inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _path_name(path: Any) -> str:
    parts = [str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path]
    name = ".".join(parts)
    return f"output_{name}" if name[0].isdigit() else name


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
    exported, watch = _export(module, signature, example)
    program = _to_program(exported, signature)
    _try_corners(module, program, watch, exported.graph, example)
    return program


def in_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with its floating-point weights in one dtype; itself if they are already."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(t.dtype == dtype for t in tensors if t.is_floating_point()):
        return module
    return copy.deepcopy(module).to(dtype)


def _sizes(inputs: Inputs, signature: Signature) -> dict[str, int]:
    return {
        dim: int(inputs[name].shape[axis])
        for name, axes in signature.axes.items()
        for axis, dim in axes.items()
    }


def _plain_sizes(example: Inputs, signature: Signature) -> dict[str, int]:
    """The example's sizes, with small ones and accidental equalities avoided where ranges allow.

    ``torch.export`` takes sizes of 0 and 1 for constants, those of ``x[1:]`` included, and two
    dims of one size are not always two. Nothing is computed at these sizes.
    """
    given = _sizes(example, signature)
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
        with quiet_torch(), torch.no_grad():
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
    made = {name: _export_dim(dim) for name, dim in dims.items()}
    shapes = {
        n: {axis: made[dim] for axis, dim in signature.axes.get(n, {}).items()}
        for n in signature.names
    }
    takes_any = [p.kind for p in _parameters(module).values()]
    if signature.positional:
        rest = inspect.Parameter.VAR_POSITIONAL in takes_any
        return _fold_var_positional(module, shapes) if rest else tuple(shapes.values())
    if inspect.Parameter.VAR_KEYWORD in takes_any:
        return _fold_var_keyword(module, shapes)
    return shapes


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(module.forward).parameters


def _fold_var_keyword(module: nn.Module, shapes: dict[str, Any]) -> Any:
    """Shapes of a module with ``**kwargs``; those it takes by name are as they were.

    Raises:
        UnsupportedError: ``**kwargs`` takes an input, and there are dynamic dims, which
            ``torch.export`` cannot express together.
    """
    parameters = _parameters(module)
    caught = [n for n in shapes if n not in parameters]
    if caught and any(shapes.values()):
        raise UnsupportedError(
            f"forward takes '{caught[0]}' by **kwargs, where torch.export cannot have dynamic "
            f"dims: make '{caught[0]}' a parameter of its own"
        )
    return None if caught else shapes


def _fold_var_positional(module: nn.Module, shapes: dict[str, Any]) -> Any:
    """The same for ``*args``: a tuple in the place of that parameter."""
    before = list(_parameters(module).values())
    count = next(i for i, p in enumerate(before) if p.kind is p.VAR_POSITIONAL)
    values = list(shapes.values())
    return (*values[:count], tuple(values[count:]))


def _export_dim(dim: Dim) -> Any:
    if dim.max is not None and dim.min == dim.max:
        return dim.min
    return torch.export.Dim(_identifier(dim.name), min=dim.min, max=dim.max)


def _identifier(name: str) -> str:
    clean = re.sub(r"\W", "_", name)
    return clean if clean.isidentifier() else f"dim_{clean}"


def _try_corners(
    module: nn.Module, program: Program, watch: Watch, graph: fx.Graph, example: Inputs
) -> None:
    """Compare program and module where an assumption made in tracing does not hold.

    Raises:
        UnsupportedError: they differ: the model takes another path at those sizes.
    """
    signature = watch.signature
    ends = [
        Corner(_sizes(example, signature) | {name: end}, watch.place(name))
        for name in watch.narrowed()
        for end in (signature.dims[name].min, signature.dims[name].max)
        if end is not None
    ]
    for corner in [*watch.corners(graph, _sizes(example, signature)), *ends]:
        inputs = resize(example, signature, corner.sizes)
        different = _difference(module, program, signature, inputs)
        if different:
            sizes = ", ".join(f"{n} = {v}" for n, v in corner.sizes.items())
            traced = ", ".join(f"{n} = {v}" for n, v in _sizes(example, signature).items())
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
            return f"the module itself fails there ({_first_lines(str(error), 1)})"
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
    text = _own_names(str(error), watch.signature)
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


def _own_names(text: str, signature: Signature) -> str:
    for name in signature.dims:
        text = re.sub(rf"\b{_identifier(name)}\b", name, text)
    return text


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


def _to_program(exported: Any, signature: Signature) -> Program:
    program = Program(fx.Graph(), {}, Contract((), (), ()), {})
    copies: dict[Node, Any] = {}
    _copy_inputs(exported, signature, program, copies)
    _copy_calls(exported.graph_module, program.graph, copies)
    outputs = _user_outputs(exported)
    program.graph.output(tuple(copies[n] for n in outputs.values()))
    program.symbols = _symbol_names(program, signature)
    program.contract = _contract(program, signature, list(outputs))
    program.erase_dead(n for n in reversed(list(program.calls())) if not n.users)
    program.erase_dead(list(program.graph.find_nodes(op="get_attr")))
    program.drop_unused_weights()
    return program


def _copy_inputs(
    exported: Any, signature: Signature, program: Program, copies: dict[Node, Any]
) -> None:
    lifted = _lifted_weights(exported)
    by_node = {s.arg.name: s for s in exported.graph_signature.input_specs}
    user_inputs = iter(signature.names)
    shared: dict[Any, Node] = {}
    for node in exported.graph.find_nodes(op="placeholder"):
        name = by_node[node.name].target
        if name is None:
            copies[node] = program.graph.placeholder(next(user_inputs, node.name))
            copies[node].meta = dict(node.meta)
        else:
            copies[node] = _add_weight(node, name, lifted[name], program, shared)


def _copy_calls(source: fx.GraphModule, graph: fx.Graph, copies: dict[Node, Any]) -> Any:
    """Copy the calls of a graph; those of regions without effect here are copied in line."""
    for node in source.graph.nodes:
        if node.op == "output":
            return fx.map_arg(node.args[0], copies.__getitem__)
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            inner, operands = _region(node, source)
            inputs = inner.graph.find_nodes(op="placeholder")
            given = [copies[n] if isinstance(n, Node) else n for n in operands]
            copies[node] = _copy_calls(inner, graph, dict(zip(inputs, given)))
        elif node.target is operator.getitem and isinstance(copies[node.args[0]], (tuple, list)):
            copies[node] = copies[node.args[0]][node.args[1]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return None


def _region(node: Node, source: fx.GraphModule) -> tuple[fx.GraphModule, tuple[Any, ...]]:
    """The body and the operands of a ``no_grad`` or disabled ``autocast`` region.

    Raises:
        UnsupportedError: control flow, or autocast that is on.
    """
    name = str(node.target)
    place = source_line(node) or "its source"
    if name == "wrap_with_autocast" and node.args[2]:
        raise UnsupportedError(
            f"the model computes under torch.autocast ({place}); remove it: the target chooses "
            "the dtype"
        )
    if name not in ("wrap_with_autocast", "wrap_with_set_grad_enabled"):
        raise UnsupportedError(
            f"the model holds control flow on tensors, {name} ({place}); an artifact has none. "
            "Compute both sides and choose by `torch.where`."
        )
    place_of_body = 4 if name == "wrap_with_autocast" else 1
    body = getattr(source, str(node.args[place_of_body].target))  # type: ignore[union-attr]
    return body, tuple(node.args[place_of_body + 1 :])


def _lifted_weights(exported: Any) -> dict[str, torch.Tensor]:
    return dict(exported.state_dict) | dict(exported.constants)


def _add_weight(
    node: Node, name: str, tensor: Any, program: Program, shared: dict[Any, Node]
) -> Node:
    """A node for a weight: the same one for weights that are the same memory."""
    if not isinstance(tensor, torch.Tensor):
        raise UnsupportedError(
            f"the model holds '{name}', a {type(tensor).__name__}; strop captures tensors only"
        )
    key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
    if tensor.numel() and key in shared:
        first = str(shared[key].target)
        program.origins[first] = Origin((*program.origins[first].sources, name))
        return shared[key]
    made = shared[key] = program.graph.create_node("get_attr", name)
    made.meta = dict(node.meta)
    program.weights[name] = tensor
    program.origins[name] = Origin((name,))
    return made


def _user_outputs(exported: Any) -> dict[str, Node]:
    """The output nodes that are the user's tensors, by name, in order.

    Raises:
        UnsupportedError: the model changes its own buffers or inputs when it runs.
    """
    leaves: list[Any] = []
    for spec, node in zip(
        exported.graph_signature.output_specs, exported.graph.output_node().args[0]
    ):
        if spec.kind.name != "USER_OUTPUT":
            what = spec.target or spec.arg.name
            raise UnsupportedError(
                f"the model writes to '{what}' while it runs ({spec.kind.name.lower()}); an "
                "artifact has no state. Return the new value as an output instead."
            )
        leaves.append(node)
    result = pytree.tree_unflatten(leaves, exported.call_spec.out_spec)
    return output_leaves(result, _is_tensor_node)


def _is_tensor_node(value: Any) -> bool:
    return isinstance(value, Node) and isinstance(value.meta["val"], torch.Tensor)


def _symbol_names(program: Program, signature: Signature) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        for axis, dim in signature.axes.get(str(node.target), {}).items():
            size = node.meta["val"].shape[axis]
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                names.setdefault(str(size.node.expr), dim)
    return names


def _contract(program: Program, signature: Signature, output_names: list[str]) -> Contract:
    inputs = [_spec(str(n.target), n, program) for n in program.graph.find_nodes(op="placeholder")]
    outputs = [_spec(name, n, program) for name, n in zip(output_names, program.outputs)]
    return Contract(tuple(inputs), tuple(outputs), tuple(signature.dims.values()))


def _spec(name: str, node: Node, program: Program) -> TensorSpec:
    value = node.meta["val"]
    shape = tuple(
        size_text(s, program.symbols) if isinstance(s, torch.SymInt) else int(s)
        for s in value.shape
    )
    if value.dtype not in DTYPE_NAMES:
        raise UnsupportedError(f"'{name}' has dtype {value.dtype} ({source_line(node)})")
    return TensorSpec(name, DTYPE_NAMES[value.dtype], shape)


def weights_not_finite(module: nn.Module) -> Iterator[str]:
    """Names of weights that hold NaN or Inf."""
    for name, tensor in module.named_parameters():
        # A sum is NaN or Inf if any element is; it needs no temporary of the weight's size.
        values = tensor.detach()
        suspect = tensor.is_floating_point() and not torch.isfinite(values.sum())
        if suspect and not torch.isfinite(values).all():
            yield name
