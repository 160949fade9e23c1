"""Loops for formulas: a step that is applied again and again, and becomes one ONNX ``Loop``.

A formula that is traced unrolls every loop of Python's; this one stays a single operator. Its
schema lies in a namespace of its own, so that no program from outside can call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
"""``step(k, state, fixed)``: the next state, of the same shapes and dtypes; k is int64 []."""

STEPS: dict[str, Step] = {}

_LIBRARY = torch.library.Library("strop_lowering", "DEF")
_LIBRARY.define("repeat(str step, SymInt count, Tensor[] state, Tensor[] fixed) -> Tensor[]")


def repeat(
    step: Step, count: int | torch.SymInt, state: Sequence[Tensor], fixed: Sequence[Tensor] = ()
) -> list[Tensor]:
    """The state after ``step(0, ...)``, ``step(1, ...)``, ... up to ``count - 1``.

    Args:
        step: a function at the top of a module; it is known by its name.
        count: how many steps.
        state: what the first step is given; a step must not change shapes or dtypes.
        fixed: what every step is given.
    """
    if isinstance(count, int) and count == 0:
        return list(state)
    name = f"{step.__module__}.{step.__qualname__}"
    STEPS[name] = step
    made: list[Tensor] = torch.ops.strop_lowering.repeat(name, count, list(state), list(fixed))
    return made


def _run(step: str, count: int, state: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
    values: Sequence[Tensor] = [t.clone() for t in state]
    for k in range(count):
        values = STEPS[step](torch.tensor(k), values, fixed)
    return list(values)


def _types(
    step: str, count: int | torch.SymInt, state: list[Tensor], fixed: list[Tensor]
) -> list[Tensor]:
    return [torch.empty_like(t) for t in state]


_LIBRARY.impl("repeat", _run, "CompositeExplicitAutograd")
torch.library.register_fake("strop_lowering::repeat", _types, lib=_LIBRARY)
