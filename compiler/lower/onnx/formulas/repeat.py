"""Loops for formulas: a step that is applied again and again, and becomes one ONNX ``Loop``.

A formula that is traced unrolls every loop of Python's; this one stays a single operator. Its
schema lies in a namespace of its own, so that no program from outside can call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Step = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
"""``step(k, state, fixed)``: the next state, of the same shapes and dtypes; k is int64 []."""
Going = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]
"""``going(k, state, fixed)``: which elements step k still changes, as truth values."""

F = TypeVar("F", bound=Callable[..., Any])

STEPS: dict[str, Step] = {}
GOING: dict[str, Going] = {}

_LIBRARY = torch.library.Library("strop_lowering", "DEF")
_LIBRARY.define("repeat(str step, SymInt count, Tensor[] state, Tensor[] fixed) -> Tensor[]")
_LIBRARY.define(
    "repeat_while(str step, str going, Tensor first, Tensor[] state, Tensor[] fixed) -> Tensor[]"
)


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
    if _is_zero(count) or all(any(map(_is_zero, t.shape)) for t in state):
        return list(state)
    name = _entered(STEPS, step)
    made: list[Tensor] = torch.ops.strop_lowering.repeat(name, count, list(state), list(fixed))
    return made


def repeat_while(
    going: Going, step: Step, state: Sequence[Tensor], fixed: Sequence[Tensor] = ()
) -> list[Tensor]:
    """The state after ``step(0, ...)``, ``step(1, ...)``, ... while any element is going.

    Args:
        going: asked before every step; a function at the top of a module, like the step.
        step: as of ``repeat``; it must leave the elements that are not going as they are.
        state: what the first step is given.
        fixed: what every step is given.
    """
    names = _entered(STEPS, step), _entered(GOING, going)
    first = going(torch.zeros((), dtype=torch.int64), state, fixed).any()
    made: list[Tensor] = torch.ops.strop_lowering.repeat_while(
        *names, first, list(state), list(fixed)
    )
    return made


def _entered(table: dict[str, F], function: F) -> str:
    """The name under which a function is found again."""
    name = f"{function.__module__}.{function.__qualname__}"
    table[name] = function
    return name


def _is_zero(size: int | torch.SymInt) -> bool:
    return isinstance(size, int) and size == 0


def _run(step: str, count: int, state: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
    values: Sequence[Tensor] = [t.clone() for t in state]
    for k in range(count):
        values = STEPS[step](torch.tensor(k), values, fixed)
    return list(values)


def _run_while(
    step: str, going: str, first: Tensor, state: list[Tensor], fixed: list[Tensor]
) -> list[Tensor]:
    values: Sequence[Tensor] = [t.clone() for t in state]
    k, go_on = torch.tensor(0), first
    while bool(go_on):
        values, k = STEPS[step](k, values, fixed), k + 1
        go_on = GOING[going](k, values, fixed).any()
    return list(values)


def _types(*given: Any) -> list[Tensor]:
    """The types of the results: a step does not change those of the state."""
    *_, state, _ = given
    return [torch.empty_like(t) for t in state]


for _name, _implementation in (("repeat", _run), ("repeat_while", _run_while)):
    _LIBRARY.impl(_name, _implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"strop_lowering::{_name}", _types, lib=_LIBRARY)
