"""What a pruned program is compared with: the same one with zeros, or with masked statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.verifier import verify
from strop.passes.prune.axes import Axes, Dependencies
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.dims import leaves, positions_after
from strop.passes.prune.groups import Group, groups
from strop.passes.prune.shrink import Kept, shrink

aten = torch.ops.aten


def some(size: int, ratio: float, seed: int) -> list[int]:
    """Positions drawn at random; at least one stays and one goes."""
    generator = torch.Generator().manual_seed(seed)
    count = max(1, min(size - 1, round(size * (1 - ratio))))
    return sorted(torch.randperm(size, generator=generator)[:count].tolist())


def pruned(
    program: Program, wanted: Callable[[Group], bool], ratio: float
) -> tuple[Program, Dependencies, Kept]:
    """A smaller copy, what the analysis found in the original, and what was kept of it."""
    found, new = dependencies(program), program.clone()
    kept = keep(found, wanted, ratio)
    fresh = dependencies(new)
    shrink(new, fresh, keep(fresh, wanted, ratio), "prune")
    new.drop_unused_weights()
    verify(new)
    return new, found, kept


def keep(found: Dependencies, wanted: Callable[[Group], bool], ratio: float) -> Kept:
    """What some groups keep."""
    return {
        g.leaf: some(g.size, ratio, seed)
        for seed, g in enumerate(groups(found))
        if not g.frozen and wanted(g)
    }


def mask_of(axes: Axes, kept: Kept) -> Tensor:
    """1 where a position of every axis stays, else 0; broadcasts to the tensor."""
    mask = torch.ones([1] * len(axes))
    for axis, dim in enumerate(axes):
        if any(one in kept for one in leaves(dim)):
            line = torch.zeros(int(dim.size)).index_fill(0, positions_after(dim, kept), 1)
            mask = mask * line.reshape([-1 if i == axis else 1 for i in range(len(axes))])
    return mask


def zeroed(program: Program, found: Dependencies, kept: Kept) -> dict[str, Tensor]:
    """The weights, with zeros where positions are dropped."""
    made = {}
    for name, weight in program.weights.items():
        mask = mask_of(found.weights[name], kept) if name in found.weights else torch.ones(())
        made[name] = weight.detach() * mask.to(weight.dtype)
    return made


def with_zeros(program: Program, found: Dependencies, kept: Kept, inputs: Inputs) -> list[Tensor]:
    """The outputs where dropped slices of weights are zeros, and nothing else is changed."""
    return interpreted(program.graph, zeroed(program, found, kept), program, inputs, {})


def masked(program: Program, found: Dependencies, kept: Kept, inputs: Inputs) -> list[Tensor]:
    """The same, where norms, means and softmaxes leave dropped positions out of their count."""
    special = {}
    for node in program.calls():
        over = [axes for axes in read_axes(node, found) if not mask_of(axes, kept).all()]
        if over and node.target in MASKED:
            special[node] = mask_of(over[0], kept)
    return interpreted(program.graph, zeroed(program, found, kept), program, inputs, special)


def read_axes(node: Node, found: Dependencies) -> Iterable[Axes]:
    """The axes of the first tensor that a call reads."""
    return found.values.get(node.all_input_nodes[0], [])[:1] if node.all_input_nodes else []


def interpreted(
    graph: fx.Graph,
    weights: Mapping[str, Tensor],
    program: Program,
    inputs: Inputs,
    special: Mapping[Node, Tensor],
) -> list[Tensor]:
    """Run node by node; some calls with a mask."""
    given = iter([inputs[spec.name] for spec in program.contract.inputs])
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            values[node] = next(given)
        elif node.op == "get_attr":
            values[node] = weights[str(node.target)]
        elif node in special:
            known = fx.map_arg(arguments(node), values.__getitem__)
            values[node] = MASKED[node.target](known, special[node])
        elif node.op == "call_function":
            values[node] = node.target(*args, **kwargs)
    return [values[node] for node in program.outputs]


def _mean(x: Tensor, mask: Tensor, dims: list[int]) -> Tensor:
    mask = mask.expand_as(x)
    return (x * mask).sum(dims, keepdim=True) / mask.sum(dims, keepdim=True).clamp(min=1)


def _layer_norm(given: Any, mask: Tensor) -> Tensor:
    x, dims = given["input"], list(range(-len(given["normalized_shape"]), 0))
    centred = x - _mean(x, mask, dims)
    made = centred * (_mean(centred**2, mask, dims) + given["eps"]).rsqrt()
    made = made * given["weight"] if given["weight"] is not None else made
    return (made + given["bias"] if given["bias"] is not None else made) * mask


def _mean_dim(given: Any, mask: Tensor) -> Tensor:
    dims = [given["dim"]] if isinstance(given["dim"], int) else list(given["dim"])
    made = _mean(given["self"], mask, dims)
    return made if given["keepdim"] else made.squeeze(dims)


def _softmax(given: Any, mask: Tensor) -> Tensor:
    return F.softmax(given["self"].masked_fill(mask == 0, -torch.inf), given["dim"]) * mask


def _group_norm(given: Any, mask: Tensor) -> Tensor:
    x, count = given["input"], given["num_groups"]
    cut = (x.shape[0], count, -1)
    flat, seen = x.reshape(cut), mask.expand_as(x).reshape(cut)
    centred = flat - (flat * seen).sum(-1, True) / seen.sum(-1, True).clamp(min=1)
    spread = (centred**2 * seen).sum(-1, True) / seen.sum(-1, True).clamp(min=1)
    made = (centred * (spread + given["eps"]).rsqrt()).reshape(x.shape)
    shape = [1, -1, *[1] * (x.dim() - 2)]
    if given["weight"] is not None:
        made = made * given["weight"].reshape(shape) + given["bias"].reshape(shape)
    return made * mask


MASKED: dict[Any, Callable[[Any, Tensor], Tensor]] = {
    aten.layer_norm.default: _layer_norm,
    aten.mean.dim: _mean_dim,
    aten.softmax.int: _softmax,
    aten.group_norm.default: _group_norm,
}


def assert_pruned_as_masked(
    program: Program, inputs: Inputs, wanted: Callable[[Group], bool], ratio: float
) -> Program:
    """Slicing gives what zeros give, or what masked statistics give where zeros change them."""
    new, found, kept = pruned(program, wanted, ratio)
    assert kept, "no group is wanted, or all of them are frozen"
    exact = not any(leaf.inexact for leaf in kept)
    with torch.no_grad():
        want = (with_zeros if exact else masked)(program, found, kept, inputs)
        got = new.run(**inputs)
    for w, g, node in zip(want, got, new.outputs):
        assert tuple(g.shape) == tuple(w.shape)
        assert len(node.meta["val"].shape) == g.dim()
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)
    assert sum(w.numel() for w in new.weights.values()) < sum(
        w.numel() for w in program.weights.values()
    )
    return new
