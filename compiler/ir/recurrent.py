"""Recurrent networks as single operators: their types without a walk over time.

Torch's own rules for ``aten.lstm`` and its like on fake tensors compute step by step. That fixes
the number of steps, and unrolls the network into one copy of its cell for each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._C import DispatchKey

aten = torch.ops.aten
_KEYS = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)


@dataclass(frozen=True)
class Settings:
    """The arguments of a recurrent operator after its input, its states and its weights."""

    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool

    @property
    def directions(self) -> int:
        """How often each layer reads the sequence."""
        return 2 if self.bidirectional else 1


def _results(
    x: torch.Tensor, hx: Any, params: list[torch.Tensor], *settings: Any
) -> tuple[torch.Tensor, ...]:
    """The sequence, and a final state for each first one: two of an LSTM, one of the others."""
    states = [hx] if isinstance(hx, torch.Tensor) else hx
    given = Settings(*settings)
    return (_sequence(x, states[0], given), *map(torch.empty_like, states))


def _sequence(x: torch.Tensor, state: torch.Tensor, given: Settings) -> torch.Tensor:
    """[time, batch, directions * state] in memory, whatever the order of the axes."""
    time, batch = (x.shape[1], x.shape[0]) if given.batch_first else (x.shape[0], x.shape[1])
    made = x.new_empty((time, batch, state.shape[-1] * given.directions))
    return made.transpose(0, 1) if given.batch_first else made


_OPERATORS = (
    aten.lstm.input,
    aten.gru.input,
    aten.rnn_tanh.input,
    aten.rnn_relu.input,
)
TYPES: dict[Any, Any] = dict.fromkeys(_OPERATORS, _results)
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
