"""What torch computes for an operator of the dialect that no kernel takes: its reference."""

from __future__ import annotations

from typing import Any

from torch import SymInt, Tensor, fx
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from strop.compiler.ir.dialect.registry import reference_of
from strop.compiler.lower.triton.refusal import NotLowered


def tensors_in(arguments: Any) -> list[Tensor]:
    """The tensors among the arguments of a call, in order."""
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]


def inputs_in(arguments: Any) -> list[Tensor | SymInt]:
    """The tensors and symbolic sizes among the arguments of a call, in order."""
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor | SymInt)]


def reference(target: OpOverload[Any, Any], args: Any, kwargs: Any) -> fx.Graph:
    """An operator's reference as a graph of the operators that it calls, none of them taken apart.

    Args:
        target: of the dialect.
        args: fake tensors, sizes and settings.
        kwargs: likewise.

    Returns:
        Its inputs are those of ``inputs_in``.

    Raises:
        NotLowered: it cannot be traced at these sizes.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor | SymInt)]

    def call(*inputs: Tensor | SymInt) -> Any:
        filled = list(leaves)
        for place, one in zip(places, inputs):
            filled[place] = one
        given, named = pytree.tree_unflatten(filled, structure)
        return reference_of(target)(*given, **named)

    try:
        # A tensor may be given twice, by which the trace could not tell its inputs apart.
        own = [x.detach() if isinstance(x, Tensor) else x for x in inputs_in((args, kwargs))]
        return make_fx(call, pre_dispatch=True)(*own).graph
    except Exception as error:  # a trace may raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotLowered(f"it has no kernel, and its reference is not traced: {said}") from error
