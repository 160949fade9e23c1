"""Example inputs and the axes that vary; shared by the modules for text, images and audio."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from strop.compiler.frontend.huggingface.library import reason
from strop.compiler.frontend.model import DimSpec, Model

Batch = dict[str, torch.Tensor]
Axes = dict[str, dict[int, DimSpec]]


@dataclass
class Examples:
    """Batches of inputs by name.

    Attributes:
        batches: each a set of inputs; the first is the example.
        axes: per input, the axes that vary.
        tried: names of dims that the module took at several sizes; whether it can be captured
            with them is not known.
        notes: what the user should know, in sentences.
    """

    batches: list[Batch]
    axes: Axes
    tried: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def beside(self, other: Examples) -> Examples:
        """Both kinds of inputs together."""
        batches = [a | b for a, b in zip(self.batches, other.batches)]
        notes = self.notes + other.notes
        return Examples(batches, self.axes | other.axes, self.tried + other.tried, notes)


def generator() -> torch.Generator:
    """The same random numbers in every build."""
    return torch.Generator().manual_seed(0)


def scratch(module: torch.nn.Module) -> torch.nn.Module:
    """A copy that shares the weights: some modules keep the sizes that they were called with."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def keeps_sizes(module: torch.nn.Module, batch: Batch, others: Sequence[Batch]) -> bool:
    """Whether a module gives other numbers after it was called at other sizes, as Swin does."""
    used = scratch(module)
    with torch.no_grad():
        before = used(**batch)
        for other in others:
            used(**other)
        if failure(used, batch):
            return True
        after = used(**batch)
    pairs = zip(pytree.tree_leaves(before), pytree.tree_leaves(after))
    return not all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))


def failure(module: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> str | None:
    """Why a module does not take some inputs, or None: it raises, or gives NaN."""
    try:
        with torch.no_grad():
            result = scratch(module)(**inputs)
    # The module may raise anything; the exception is the answer to the question asked here.
    except Exception as error:
        return reason(error)
    values = result.values() if isinstance(result, dict) else [result]
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.isnan().any():
            return "it gives NaN"
    return None


def at_sizes(batch: Batch, axes: Mapping[str, Mapping[int, Any]], sizes: dict[str, int]) -> Batch:
    """A batch cropped, or repeated from its start, to sizes of named dims."""
    result = {}
    for name, tensor in batch.items():
        for axis, spec in axes.get(name, {}).items():
            dim = spec if isinstance(spec, str) else spec[0]
            if dim in sizes:
                index = torch.arange(sizes[dim]) % tensor.shape[axis]
                tensor = tensor.index_select(axis, index)
        result[name] = tensor
    return result


def smallest(takes: Any, sizes: Sequence[int]) -> int | None:
    """The first of some rising sizes that works, together with one more than it."""
    return next((size for size in sizes if takes(size) and takes(size + 1)), None)


def as_model(module: torch.nn.Module, examples: Examples, **more: Any) -> Model:
    """A ``Model`` of a module and its examples."""
    return Model(
        module,
        example_inputs=examples.batches[0],
        dynamic={name: axes for name, axes in examples.axes.items() if axes},
        calibration=examples.batches,
        optional_dims=examples.tried,
        **more,
    )
