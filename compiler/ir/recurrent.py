"""Recurrent networks as single operators: their types without a walk over time.

Torch's own rules for ``aten.lstm`` and its like on fake tensors compute step by step. That fixes
the number of steps, and unrolls the network into one copy of its cell for each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch._C import DispatchKey

aten = torch.ops.aten
_KEYS = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)


def _lstm(
    x: torch.Tensor,
    hx: list[torch.Tensor],
    params: list[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    output = _sequence(x, hx[0], bidirectional, batch_first)
    return output, torch.empty_like(hx[0]), torch.empty_like(hx[1])


def _plain(
    x: torch.Tensor,
    hx: torch.Tensor,
    params: list[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _sequence(x, hx, bidirectional, batch_first), torch.empty_like(hx)


def _sequence(
    x: torch.Tensor, state: torch.Tensor, bidirectional: bool, batch_first: bool
) -> torch.Tensor:
    """[time, batch, directions * state] in memory, whatever the order of the axes."""
    time, batch = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
    width = state.shape[-1] * (2 if bidirectional else 1)
    made = x.new_empty((time, batch, width))
    return made.transpose(0, 1) if batch_first else made


TYPES: dict[Any, Any] = {
    aten.lstm.input: _lstm,
    aten.gru.input: _plain,
    aten.rnn_tanh.input: _plain,
    aten.rnn_relu.input: _plain,
}
"""For each recurrent operator a function that gives tensors of the types of its results."""


@contextlib.contextmanager
def kept_whole() -> Iterator[None]:
    """While this holds, ``torch.export`` records recurrent networks as single operators."""
    saved = {operator: dict(operator.py_kernels) for operator in TYPES}
    for operator, typed in TYPES.items():
        _set_kernels(operator, saved[operator] | dict.fromkeys(_KEYS, typed))
    try:
        yield
    finally:
        for operator, kernels in saved.items():
            _set_kernels(operator, kernels)


def _set_kernels(operator: Any, kernels: dict[Any, Any]) -> None:
    operator.py_kernels.clear()
    operator.py_kernels.update(kernels)
    operator._dispatch_cache.clear()
