"""The memory of one run: inputs, weights, the arena, and what torch makes; and calls of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from strop.compiler.targets.triton.bound import Bound, View
from strop.compiler.targets.triton.externs import decode, operator_of
from strop.compiler.targets.triton.plan import ExternValues
from strop.compiler.util.errors import RuntimeRefusedError
from strop.kernels.expression import evaluate


class Memory:
    """Gives the tensor behind each view of a plan."""

    def __init__(
        self,
        bound: Bound,
        inputs: Sequence[Tensor],
        weights: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        self.bound, self.device = bound, device
        self._arena = torch.empty(bound.arena, dtype=torch.uint8, device=device)
        self._fixed = {"input": inputs, "weight": weights}
        self._made: dict[int, Tensor] = {}

    def tensor(self, number: int) -> Tensor:
        """The tensor of a view; it shares the memory."""
        view = self.bound.views[number]
        base = self._base(view)
        return base.as_strided(view.shape, view.stride, base.storage_offset() + view.offset)

    def _base(self, view: View) -> Tensor:
        """Memory in the view's dtype."""
        if view.of == "slot":
            start = self.bound.offsets[view.number]
            end = start + (view.offset + view.extent) * view.dtype.itemsize
            return self._arena[start:end].view(view.dtype)
        base = self._made[view.number] if view.of == "made" else self._fixed[view.of][view.number]
        return base if base.dtype == view.dtype else base.view(view.dtype)

    def put(self, number: int, made: Tensor) -> None:
        """Keep what torch made as the plan describes it.

        Raises:
            RuntimeRefusedError: it has another shape or dtype, or lies on another device.
        """
        view = self.bound.views[number]
        if (made.dtype, tuple(made.shape)) != (view.dtype, view.shape):
            raise RuntimeRefusedError(
                f"%{view.name} is {made.dtype} {list(made.shape)}; the plan has {view.dtype} "
                f"{list(view.shape)}"
            )
        # A kernel would read the address of another device's memory as one of its own.
        if made.device != self.device:
            raise RuntimeRefusedError(f"%{view.name} lies on {made.device}, not on {self.device}")
        if made.stride() != view.stride or made.data_ptr() % _ALIGNMENT:
            placed = made.new_empty_strided(view.shape, view.stride)
            made = placed.copy_(made)
        self._made[view.number] = made

    def forget(self, numbers: Sequence[int]) -> None:
        """Let go of what torch made and nothing reads any more."""
        for number in numbers:
            del self._made[number]


_ALIGNMENT = 16


def call(step: ExternValues, memory: Memory) -> None:
    """Call torch's operator, and keep its results.

    Raises:
        UsageError: plans may not call it, or not with these arguments.
        RuntimeRefusedError: it gives something else than the plan says.
    """
    given: list[Tensor] = []

    def tensor(number: Any) -> Tensor:
        given.append(memory.tensor(int(number)))
        return given[-1]

    def size(text: Any) -> int:
        return evaluate(str(text), memory.bound.sizes)

    known = {"value": tensor, "size": size}
    args = [decode(a, memory.device, known) for a in step.args]
    kwargs = {k: decode(v, memory.device, known) for k, v in step.kwargs.items()}
    target = operator_of(step.operator, args, kwargs)
    if _is_placed(target, len(args)) and kwargs.get("device") is None:
        kwargs["device"] = memory.device
    result = target(*args, **kwargs)
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    if len(results) != len(step.results):
        raise RuntimeRefusedError(
            f"%{step.node} has {len(results)} results, the plan another count"
        )
    lent = {t.untyped_storage().data_ptr() for t in given}
    for number, made in zip(step.results, results):
        if number is not None:
            # Whether torch copies may depend on sizes; what it lends will be used for other values.
            is_lent = made.untyped_storage().data_ptr() in lent
            memory.put(number, made.clone() if is_lent else made)


def _is_placed(target: OpOverload[..., Any], given: int) -> bool:
    """Whether an operator takes a device by name, behind so many arguments by position."""
    return any(a.name == "device" for a in target._schema.arguments[given:])
