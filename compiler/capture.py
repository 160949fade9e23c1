"""``torch.export`` into a ``Program``: the only importer of ``torch.export``."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.errors import UnsupportedError
from strop.compiler.inputs import Inputs, Signature, resize
from strop.compiler.program import DTYPE_NAMES, Contract, Dim, Origin, Program, TensorSpec
from strop.compiler.text import size_text, source_line


def output_leaves(result: Any) -> dict[str, torch.Tensor]:
    """Flatten a module's result into named tensors; ``None`` leaves are dropped.

    Dict and dataclass fields give their names, positions give ``output_0``; nested ones are
    joined by dots. Leaves that are not tensors are dropped too: a runtime returns tensors.
    """
    if isinstance(result, torch.Tensor):
        return {"output": result}
    leaves, _ = pytree.tree_flatten_with_path(result)
    named = {}
    for path, leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            named[_path_name(path)] = leaf
    return named


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
    example = _avoid_special_sizes(example, signature)
    outputs = output_leaves(signature.call(module, example))
    exported = _export(module, signature, example)
    return _to_program(exported, signature, list(outputs))


def in_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with its floating-point weights in one dtype; itself if they are already."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(t.dtype == dtype for t in tensors if t.is_floating_point()):
        return module
    return copy.deepcopy(module).to(dtype)


def _avoid_special_sizes(example: Inputs, signature: Signature) -> Inputs:
    sizes: dict[str, int] = {}
    for name, axes in signature.axes.items():
        for axis, dim in axes.items():
            if example[name].shape[axis] < 2:
                high = signature.dims[dim].max
                sizes[dim] = 2 if high is None or high >= 2 else 1
    # Different sizes for different dims: an accidental equality must not look like a rule.
    return resize(example, signature, sizes)


def _export(module: nn.Module, signature: Signature, example: Inputs) -> Any:
    dims = {d.name: _export_dim(d) for d in signature.dims.values()}
    shapes = {
        n: {axis: dims[dim] for axis, dim in signature.axes.get(n, {}).items()}
        for n in signature.names
    }
    args = tuple(example.values()) if signature.positional else ()
    kwargs = {} if signature.positional else example
    dynamic = tuple(shapes.values()) if signature.positional else shapes
    if any(p.kind is p.VAR_KEYWORD for p in _parameters(module).values()):
        dynamic = _fold_var_keyword(module, signature, shapes) if kwargs else dynamic
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                module, args, kwargs, dynamic_shapes=dynamic, strict=False
            )
            if _writes_in_place(exported.graph):
                exported = exported.run_decompositions({})
    except Exception as error:
        raise UnsupportedError(explain_export_failure(error)) from error
    return exported


def _parameters(module: nn.Module) -> Any:
    import inspect

    return inspect.signature(module.forward).parameters


def _fold_var_keyword(module: nn.Module, signature: Signature, shapes: dict[str, Any]) -> Any:
    """``torch.export`` wants inputs taken by ``**kwargs`` under that parameter's own name."""
    parameters = _parameters(module)
    catch_all = next(n for n, p in parameters.items() if p.kind is p.VAR_KEYWORD)
    direct = {n: s for n, s in shapes.items() if n in parameters}
    caught = {n: s for n, s in shapes.items() if n not in parameters}
    return direct | ({catch_all: caught} if caught else {})


def _export_dim(dim: Dim) -> Any:
    if dim.max is not None and dim.min == dim.max:
        return dim.min
    name = re.sub(r"\W", "_", dim.name)
    return torch.export.Dim(name, min=dim.min, max=dim.max)


def _writes_in_place(graph: fx.Graph) -> bool:
    return any(
        isinstance(n.target, OpOverload) and n.target._schema.is_mutable for n in graph.nodes
    )


def explain_export_failure(error: Exception) -> str:
    """One or two sentences for the user, with the place in their source."""
    text = str(error)
    where = _place_in_source(error)
    specialised = re.search(r"Specializations unexpectedly required \((.*?)\)", text)
    constant = re.search(r"marked (\S+) as dynamic but your code specialized it to be a "
                         r"constant \((\d+)\)", text)
    if constant or specialised:
        dim = (constant or specialised)[1].strip("`'\"")  # type: ignore[index]
        value = f" ({constant[2]})" if constant else ""
        return (
            f"dim '{dim}' is declared dynamic, but the model works with one size only{value}"
            f"{where}. Either drop it from `dynamic`, narrow its range, or change the code so "
            f"that it does not depend on the size.\n{_first_lines(text)}"
        )
    if "Constraints violated" in text:
        return (
            f"the dynamic dims do not fit the model{where}: {_first_lines(text, 6)}\n"
            "Change the names or ranges in `dynamic`."
        )
    if "data-dependent" in text or "GuardOnDataDependentSymNode" in type(error).__name__:
        return (
            f"the model decides on a tensor's value{where}, which a graph cannot do: "
            f"{_first_lines(text, 2)}\nReplace the `if` on a tensor by `torch.where`, or take the "
            "decision out of `forward`."
        )
    return f"torch.export could not capture the model{where}: {_first_lines(text, 3)}"


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


def _to_program(exported: Any, signature: Signature, output_names: list[str]) -> Program:
    lifted = _lifted_weights(exported)
    by_node = {s.arg.name: s for s in exported.graph_signature.input_specs}
    graph = fx.Graph()
    copies: dict[Node, Node] = {}
    user_inputs = iter(signature.names)
    weights: dict[str, torch.Tensor] = {}
    origins: dict[str, Origin] = {}
    shared: dict[Any, Node] = {}
    for node in exported.graph.nodes:
        if node.op != "placeholder":
            break
        if by_node[node.name].target is None:
            copies[node] = graph.placeholder(next(user_inputs, node.name))
            copies[node].meta = dict(node.meta)
            continue
        _add_weight(node, by_node[node.name].target, lifted, graph, copies, shared, weights,
                    origins)
    for node in exported.graph.nodes:
        if node.op == "call_function":
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    tensors = _user_outputs(exported)
    graph.output(tuple(copies[n] for n in tensors))
    program = Program(graph, weights, Contract((), (), ()), origins)
    program.symbols = _symbol_names(program, signature)
    program.contract = _contract(program, signature, output_names)
    program.erase_dead(n for n in reversed(list(program.calls())) if not n.users)
    program.erase_dead(list(graph.find_nodes(op="get_attr")))
    program.drop_unused_weights()
    return program


def _lifted_weights(exported: Any) -> dict[str, torch.Tensor]:
    return dict(exported.state_dict) | dict(exported.constants)


def _add_weight(
    node: Node,
    name: str,
    lifted: dict[str, torch.Tensor],
    graph: fx.Graph,
    copies: dict[Node, Node],
    shared: dict[Any, Node],
    weights: dict[str, torch.Tensor],
    origins: dict[str, Origin],
) -> None:
    tensor = lifted[name]
    if not isinstance(tensor, torch.Tensor):
        raise UnsupportedError(
            f"the model holds '{name}', a {type(tensor).__name__}; strop captures tensors only"
        )
    key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
    if tensor.numel() and key in shared:
        copies[node] = shared[key]
        first = str(shared[key].target)
        origins[first] = Origin((*origins[first].sources, name))
        return
    copies[node] = shared[key] = graph.create_node("get_attr", name)
    copies[node].meta = dict(node.meta)
    weights[name] = tensor
    origins[name] = Origin((name,))


def _user_outputs(exported: Any) -> list[Node]:
    """The output nodes that are the user's tensors, in order.

    Raises:
        UnsupportedError: the model changes its own buffers or inputs when it runs.
    """
    result: list[Node] = []
    nodes = exported.graph.output_node().args[0]
    for spec, node in zip(exported.graph_signature.output_specs, nodes):
        if spec.kind.name == "USER_OUTPUT":
            if isinstance(node, Node) and isinstance(node.meta["val"], torch.Tensor):
                result.append(node)
        else:
            what = spec.target or spec.arg.name
            raise UnsupportedError(
                f"the model writes to '{what}' while it runs ({spec.kind.name.lower()}); an "
                "artifact has no state. Return the new value as an output instead."
            )
    return result


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
        if tensor.is_floating_point() and not torch.isfinite(tensor.detach().sum()):
            if not torch.isfinite(tensor.detach()).all():
                yield name
