"""The user's module itself: run as the reference, with its outputs named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from strop.compiler.frontend.inputs import Signature
from strop.compiler.ir.running import Inputs


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

    It is called on copies: a module may write to its inputs. The fused kernels of
    ``nn.MultiheadAttention`` are off: they drop padded positions or write zeros there, which the
    module's own formulas, and so the graph, do not.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            copies = {name: tensor.clone() for name, tensor in inputs.items()}
            return output_leaves(signature.call(module, copies))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _path_name(path: Any) -> str:
    parts = [str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path]
    name = ".".join(parts)
    return f"output_{name}" if not name or name[0].isdigit() else name


def weights_not_finite(module: nn.Module) -> Iterator[str]:
    """Names of weights that hold NaN or Inf."""
    for name, tensor in module.named_parameters():
        # A sum is NaN or Inf if any element is; it needs no temporary of the weight's size.
        values = tensor.detach()
        suspect = tensor.is_floating_point() and not torch.isfinite(values.sum())
        if suspect and not torch.isfinite(values).all():
            yield name
