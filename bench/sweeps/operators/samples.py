"""Samples of torch's operators, as modules: what torch's own tests call each operator with.

They come from ``op_db``, the table of ``torch.testing`` that lists torch's operators with a
generator of valid arguments for each.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# Samples taken of each operator, in the order in which torch lists them.
EACH = 2
# Their arguments must be in order, or are undefined in torch: no other values are made up.
ORDERED = {"searchsorted", "bucketize", "histogram", "histogramdd"}


class CallModule(nn.Module):
    """Calls a function with all arguments but its tensors bound; those are the inputs, in order."""

    def __init__(self, function: Any, arguments: Any) -> None:
        super().__init__()
        self.function = function
        self.leaves, self.structure = pytree.tree_flatten(arguments)
        self.places = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the arguments held; where there are none, one that is not read."""
        return tuple(self.leaves[i].detach() for i in self.places) or (torch.zeros(1),)

    def forward(self, *values: Tensor) -> Any:
        """The function's result."""
        leaves = list(self.leaves)
        for place, value in zip(self.places, values):
            leaves[place] = value
        first, args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return self.function(first, *args, **kwargs)


@dataclass(frozen=True)
class Sample:
    """One call of one operator.

    Attributes:
        operator: torch's name of it, with its variant.
        number: which of the operator's samples, from 0.
        dtype: of its first argument.
        module: the call.
        inputs: the sample's tensors.
        others: more inputs of the same shapes and types, with other values.
    """

    operator: str
    number: int
    dtype: torch.dtype
    module: nn.Module
    inputs: tuple[Tensor, ...]
    others: tuple[tuple[Tensor, ...], ...]

    @property
    def label(self) -> str:
        """For tables: ``nn.functional.pad_circular[1]``."""
        return f"{self.operator}[{self.number}]"


def operators(dtype: torch.dtype) -> list[Any]:
    """The entries of ``op_db`` that take a dtype on the CPU."""
    from torch.testing._internal.common_methods_invocations import op_db

    return [entry for entry in op_db if entry.supports_dtype(dtype, "cpu")]


def samples(entry: Any, dtype: torch.dtype) -> Iterator[Sample]:
    """The first samples of one operator; the same ones at every call."""
    name = entry.name + (f".{entry.variant_test_name}" if entry.variant_test_name else "")
    first, second = (_drawn(entry, dtype, seed) for seed in (0, 1))
    for number, call in enumerate(first):
        inputs = call.tensors()
        again = second[number].tensors() if number < len(second) else ()
        others = [again] if _alike(call, second[number]) else []
        if entry.name not in ORDERED:
            others.append(_made_up(inputs))
        yield Sample(name, number, dtype, call, inputs, tuple(others))


def seed(number: int) -> None:
    """Seed whatever torch's samples and random operators draw from."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _drawn(entry: Any, dtype: torch.dtype, draw: int) -> list[CallModule]:
    seed(draw)
    drawn = itertools.islice(entry.sample_inputs("cpu", dtype, requires_grad=False), EACH)
    return [CallModule(entry.op, (s.input, s.args, s.kwargs)).eval() for s in drawn]


def _alike(one: CallModule, other: CallModule) -> bool:
    """Whether two calls differ in the values of their tensors only."""
    if one.structure != other.structure:
        return False
    return all(map(_same_leaf, one.leaves, other.leaves))


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return (one.dtype, one.shape, one.layout) == (other.dtype, other.shape, other.layout)
    return type(one) is type(other) and (one == other or one != one)


def _made_up(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Normal floats; integers, which may be indices, are only put into another order."""
    generator = torch.Generator().manual_seed(2)
    return tuple(_other_values(t, generator) for t in inputs)


def _other_values(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.layout != torch.strided or not tensor.numel():
        return tensor
    if tensor.is_floating_point() or tensor.is_complex():
        return (2 * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
    order = torch.randperm(tensor.numel(), generator=generator)
    return tensor.flatten()[order].view(tensor.shape)
