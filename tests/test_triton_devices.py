"""What torch makes for a plan lies on the plan's device, whatever the model asked for."""

from __future__ import annotations

import pytest
import torch
from program_tools import program_of
from torch import Tensor
from triton_tools import plan_of

from strop.compiler.targets.triton.bound import bind, sizes_of
from strop.compiler.targets.triton.memory import Memory, call
from strop.compiler.targets.triton.plan import ExternValues
from strop.compiler.util.errors import RuntimeRefusedError

X = torch.ones(2, 5)
DIMS = {0: {0: ("batch", 1, 8), 1: ("seq", 1, 64)}}
OTHER = torch.device("meta")


def counted(x: Tensor) -> Tensor:
    return x + torch.arange(x.shape[1]) + torch.full((1, 1), 2.0)


def memory() -> tuple[list[ExternValues], Memory]:
    """The calls of torch's operators in a plan, and its memory on another device than the CPU."""
    plan, _ = plan_of(program_of(counted, X, dims=DIMS))
    bound = bind(plan, sizes_of(plan, [tuple(X.shape)]))
    steps = [step for step in bound.steps if isinstance(step, ExternValues)]
    weights = [torch.empty(w.shape, device=OTHER) for w in plan.weights]
    return steps, Memory(bound, [X.to(OTHER)], weights, OTHER)


def test_tensors_without_inputs_are_made_on_the_plans_device() -> None:
    steps, place = memory()
    assert any(step.operator == "aten.arange.default" for step in steps)
    for step in steps:
        call(step, place)
        assert all(place.tensor(n).device == OTHER for n in step.results if n is not None)


def test_a_tensor_of_another_device_is_refused() -> None:
    steps, place = memory()
    (number,) = [s.results[0] for s in steps if s.operator == "aten.arange.default"]
    assert number is not None
    with pytest.raises(RuntimeRefusedError, match="lies on cpu, not on meta"):
        place.put(number, torch.arange(5))
