"""Named inputs: from what the user wrote to what the compiler uses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from strop.compiler.errors import UsageError, did_you_mean
from strop.compiler.model import Model
from strop.compiler.program import Dim

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Signature:
    """How the module is called.

    Attributes:
        names: input names, in order.
        positional: whether they are passed by position.
        axes: per input, the dim name of each dynamic axis.
        dims: the dims, by name.
    """

    names: tuple[str, ...]
    positional: bool
    axes: dict[str, dict[int, str]]
    dims: dict[str, Dim]

    def call(self, module: torch.nn.Module, inputs: Inputs) -> Any:
        """Call the module the way its owner does."""
        if self.positional:
            return module(*(inputs[n] for n in self.names))
        return module(**inputs)

    def named(self, given: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...]) -> Inputs:
        """One set of inputs by name.

        Raises:
            UsageError: names or number differ from the example inputs.
        """
        inputs = dict(given) if isinstance(given, Mapping) else dict(zip(self.names, given))
        if tuple(inputs) != self.names and set(inputs) != set(self.names):
            raise UsageError(
                f"calibration inputs are {sorted(inputs)}, example_inputs are {sorted(self.names)}"
            )
        return {n: inputs[n] for n in self.names}


def read_signature(model: Model) -> Signature:
    """Name the inputs and dims of a model.

    Raises:
        UsageError: an input is no tensor, or ``dynamic`` names an input or axis that is not there.
    """
    positional = not isinstance(model.example_inputs, Mapping)
    names = _names(model)
    tensors = dict(zip(names, _values(model.example_inputs)))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise UsageError(
                f"example_inputs['{name}'] is {type(tensor).__name__}; strop takes tensors: "
                "bind other arguments in a wrapper module"
            )
    axes: dict[str, dict[int, str]] = {}
    dims: dict[str, Dim] = {}
    for name, spec in (model.dynamic or {}).items():
        if name not in tensors:
            raise UsageError(f"dynamic names the input '{name}'{did_you_mean(name, list(names))}")
        axes[name] = {}
        for axis, dim in spec.items():
            axes[name][axis] = _add_dim(dims, name, axis, dim, tensors[name])
    return Signature(names, positional, axes, dims)


def _names(model: Model) -> tuple[str, ...]:
    if isinstance(model.example_inputs, Mapping):
        return tuple(model.example_inputs)
    parameters = inspect.signature(model.module.forward).parameters
    count = len(model.example_inputs)
    plain = [n for n, p in parameters.items() if p.kind is not p.VAR_POSITIONAL]
    if len(plain) >= count:
        return tuple(plain[:count])
    return tuple(f"input_{i}" for i in range(count))


def _values(given: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return list(given.values()) if isinstance(given, Mapping) else list(given)


def _add_dim(dims: dict[str, Dim], name: str, axis: int, spec: Any, tensor: torch.Tensor) -> str:
    label, low, high = (spec, 1, None) if isinstance(spec, str) else spec
    if not 0 <= axis < tensor.dim():
        raise UsageError(f"dynamic['{name}'] names axis {axis}; the tensor has {tensor.dim()} axes")
    if high is not None and not 0 < low <= high:
        raise UsageError(f"dim '{label}' of '{name}' has the range {low} to {high}")
    size = tensor.shape[axis]
    if size < low or (high is not None and size > high):
        raise UsageError(
            f"example_inputs['{name}'] has size {size} on axis {axis}, outside the range "
            f"{low} to {high} of dim '{label}'"
        )
    known = dims.setdefault(label, Dim(label, low, high))
    if isinstance(spec, str) or (known.min, known.max) == (low, high):
        return str(label)
    if known.max is None and known.min == 1:
        dims[label] = Dim(label, low, high)
        return str(label)
    raise UsageError(
        f"dim '{label}' has two ranges: {known.min} to {known.max} and {low} to {high}; "
        "axes that share a name are equal, so give the range once"
    )


def resize(inputs: Inputs, signature: Signature, sizes: Mapping[str, int]) -> Inputs:
    """The inputs cropped, or repeated from their start, to the given sizes of dynamic dims."""
    result = {}
    for name, tensor in inputs.items():
        for axis, dim in signature.axes.get(name, {}).items():
            if dim in sizes:
                index = torch.arange(sizes[dim]) % tensor.shape[axis]
                tensor = tensor.index_select(axis, index)
        result[name] = tensor
    return result
