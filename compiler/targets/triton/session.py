"""Walks a plan step by step; a device runs the launches, torch the rest.

The walk is the same whatever the device: what the interpreter is seen to do is what a GPU does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from strop.compiler.targets.target import PLAN_FILE, WEIGHTS_FILE
from strop.compiler.targets.triton.bound import Bound, BoundLaunch, bind, sizes_of
from strop.compiler.targets.triton.checks import require_sound
from strop.compiler.targets.triton.memory import Memory, call
from strop.compiler.targets.triton.plan import (
    DTYPES,
    Plan,
    read_plan,
)
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import RuntimeRefusedError, StropError, UsageError
from strop.compiler.util.files.reading import opened
from strop.compiler.util.numerics import Array

ALIGNMENT = 16
# Plans at so many different sizes are kept.
MOST_SIZES = 64
Watch = Callable[[str, Tensor], None]


class Device(Protocol):
    """What runs launches.

    Attributes:
        device: where tensors lie.
    """

    device: torch.device

    def launch(self, launch: BoundLaunch, arguments: Sequence[Any]) -> None:
        """Run a launch whose grid has programs; arguments are in order, views as tensors."""
        ...


class Prepared(Protocol):
    """A run at given sizes that is made again and again."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """Its own tensors, in order: what the next run reads."""
        ...

    def run(self) -> Sequence[Tensor]:
        """Run once; the next run may overwrite the outputs."""
        ...


def open_plan(folder: Path) -> tuple[Plan, dict[str, Tensor]]:
    """The plan of a folder, checked, and its weights by name.

    Raises:
        RuntimeRefusedError: one of the two is damaged.
    """
    try:
        plan = read_plan(folder / PLAN_FILE)
        require_sound(plan)
        return plan, _weights(folder, plan)
    except UsageError as error:
        raise RuntimeRefusedError(str(error)) from error


def _weights(folder: Path, plan: Plan) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    with opened(path, "the weights", within=folder):
        pass  # safetensors maps the file by itself; here it is only looked at
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, LookupError, ValueError, RuntimeError) as error:
        raise UsageError(f"the weights {path} are damaged: {error}") from error
    for known in plan.weights:
        tensor = found.get(known.name)
        if tensor is None or (tensor.dtype, list(tensor.shape)) != (
            DTYPES[known.dtype],
            known.shape,
        ):
            raise UsageError(f"the weights {path} do not hold '{known.name}' as the plan says")
    return found


class PlanSession:
    """A plan on a device.

    Attributes:
        inputs: names.
        outputs: names, in order.
    """

    def __init__(self, plan: Plan, weights: Mapping[str, Tensor], device: Device) -> None:
        self.plan, self.device = plan, device
        self.inputs: Sequence[str] = [i.name for i in plan.inputs]
        self.outputs: Sequence[str] = [o.name for o in plan.outputs]
        self.weights = [_placed(weights[w.name], device.device) for w in plan.weights]
        self._bound: dict[tuple[int, ...], Bound] = {}

    def run(self, feeds: Mapping[str, Array], what: str = "") -> dict[str, Array]:
        """Run once; outputs by name.

        Raises:
            RuntimeRefusedError: inputs do not fit, or a step fails.
        """
        with refusing(what):
            found = self.run_tensors([self.given(name, feeds) for name in self.inputs])
            return {name: to_array(t.cpu()) for name, t in zip(self.outputs, found)}

    def values(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What each step makes, by the name of the step's value in the program.

        Raises:
            RuntimeRefusedError: inputs do not fit, or a step fails.
        """
        seen: dict[str, Array] = {}

        def watch(name: str, tensor: Tensor) -> None:
            seen[name] = to_array(tensor.cpu()).copy()

        with refusing("all values"):
            inputs = [self.given(name, feeds) for name in self.inputs]
            bound = self.bound(inputs)
            outputs = self.walk(bound, inputs, watch)
            seen |= {name: to_array(t.cpu()) for name, t in zip(self.outputs, outputs)}
        return seen

    def run_tensors(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run once on tensors of the device; the outputs are new ones."""
        return self.walk_tensors(inputs)

    def walk_tensors(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As ``run_tensors``, step by step on every device."""
        with torch.no_grad():
            return self.walk(self.bound(inputs), inputs)

    def prepared(self, inputs: Sequence[Tensor]) -> Prepared:
        """A run at the sizes of these inputs, which it starts with copies of."""
        return Walked(self, [tensor.clone() for tensor in inputs])

    def most(self, name: str, axis: int) -> int | None:
        """The largest size of an axis of an input; None where there is no limit."""
        text = self.plan.inputs[list(self.inputs).index(name)].shape[axis]
        limits = {dim.name: dim.max for dim in self.plan.dims}
        return limits[text] if text in limits else int(text)

    def bound(self, inputs: Sequence[Tensor]) -> Bound:
        """The plan at the sizes of these inputs."""
        sizes = sizes_of(self.plan, [tuple(t.shape) for t in inputs])
        key = tuple(sizes.values())
        if key not in self._bound:
            if len(self._bound) >= MOST_SIZES:
                self._bound.pop(next(iter(self._bound)))
            self._bound[key] = bind(self.plan, sizes)
        return self._bound[key]

    def walk(
        self, bound: Bound, inputs: Sequence[Tensor], watch: Watch | None = None
    ) -> list[Tensor]:
        """Run every step."""
        memory = Memory(bound, inputs, self.weights, self.device.device)
        for step, done in zip(bound.steps, bound.done):
            if isinstance(step, BoundLaunch):
                self._launch(step, memory)
            else:
                call(step, memory)
            if watch is not None:
                for name, number in step.makes.items():
                    watch(name, memory.tensor(number))
            memory.forget(done)
        return list(self._outputs(bound, memory))

    def _outputs(self, bound: Bound, memory: Memory) -> Iterator[Tensor]:
        """The outputs, none of which shares memory with another or with what is used again."""
        taken: set[tuple[str, int]] = set()
        for output in self.plan.outputs:
            view, tensor = bound.views[output.value], memory.tensor(output.value)
            memory_of = (view.of, view.number)
            is_own = view.of == "made" and memory_of not in taken
            taken.add(memory_of)
            yield tensor if is_own else tensor.clone()

    def _launch(self, step: BoundLaunch, memory: Memory) -> None:
        # A grid without programs is an error of the driver; there is nothing to do.
        if 0 in step.grid:
            return
        given = [
            memory.tensor(int(value or 0)) if name in step.is_view else value
            for name, value in step.arguments.items()
        ]
        self.device.launch(step, given)

    def given(self, name: str, feeds: Mapping[str, Any]) -> Tensor:
        """An input on the device, contiguous, of its dtype, and aligned as kernels want it."""
        known = self.plan.inputs[list(self.inputs).index(name)]
        if name not in feeds:
            raise RuntimeRefusedError(f"the input '{name}' is missing")
        value = feeds[name]
        tensor = torch.from_numpy(np.asarray(value)) if not isinstance(value, Tensor) else value
        if tensor.dtype != DTYPES[known.dtype]:
            raise RuntimeRefusedError(f"'{name}' is {tensor.dtype}, it has to be {known.dtype}")
        return _placed(tensor, self.device.device)


@dataclass(frozen=True)
class Walked:
    """A run that walks its steps each time."""

    session: PlanSession
    inputs: Sequence[Tensor]

    def run(self) -> Sequence[Tensor]:
        """Run once."""
        return self.session.walk_tensors(self.inputs)


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, contiguous, whose memory begins at a multiple of 16 bytes."""
    there = tensor.to(device).contiguous()
    return there.clone() if there.data_ptr() % ALIGNMENT else there


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Whatever fails in the block is told as a refusal of the runtime's.

    Raises:
        RuntimeRefusedError: something failed.
    """
    try:
        yield
    except StropError as error:
        raise RuntimeRefusedError(str(error)) from error
    except Exception as error:  # torch, Triton and the driver raise anything
        place = f" ({what})" if what else ""
        said = (str(error).strip().splitlines() or [""])[0]
        raise RuntimeRefusedError(
            f"the plan does not run{place}: {type(error).__name__}: {said}"
        ) from error
