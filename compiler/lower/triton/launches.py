"""Recorded launches as steps of a plan, and the variants of kernels that they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from strop.compiler.lower.triton.memory import Memory
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.targets.triton.plan import (
    Argument,
    BucketValues,
    ChoiceValues,
    LaunchValues,
    NumberArgument,
    SizeArgument,
    TensorArgument,
)
from strop.kernels.expression import evaluate, names_in
from strop.kernels.kernel import Launch
from strop.kernels.launching import Choice, Recorded
from strop.kernels.selection import usual_buckets
from strop.kernels.specialization import plain, variant_of


class Launches:
    """Makes steps of what launchers recorded.

    Attributes:
        recorded: every launch, and the step that it became.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.recorded: list[tuple[LaunchValues, Launch]] = []

    def steps(self, recorded: Recorded, node: str) -> list[LaunchValues | ChoiceValues]:
        """The steps of a node's launches.

        Raises:
            NotLowered: an argument cannot be held by a plan.
        """
        return [step for one in recorded for step in self._steps(one, node)]

    def _steps(self, one: Launch | Choice, node: str) -> list[LaunchValues | ChoiceValues]:
        if isinstance(one, Launch):
            return [self._launch(one, node)]
        decided = _decided(one.when, one.sizes)
        if decided is not None:
            return self.steps(one.then if decided else one.otherwise, node)
        text = self.memory.expressions.text
        names = names_in(one.when)
        return [
            ChoiceValues(
                kind="choice",
                node=node,
                makes={},
                when=one.when,
                sizes={name: text(size) for name, size in one.sizes.items() if name in names},
                then=self.steps(one.then, node),
                otherwise=self.steps(one.otherwise, node),
            )
        ]

    def _launch(self, made: Launch, node: str) -> LaunchValues:
        arguments = {
            name: self._argument(value, f"{node}.{name}") for name, value in made.arguments.items()
        }
        step = LaunchValues(
            kind="launch",
            node=node,
            makes={},
            kernel=made.kernel.name,
            arguments=arguments,
            grid=list(made.kernel.grid),
            buckets=self._usual(made),
        )
        self.recorded.append((step, made))
        return step

    def _usual(self, made: Launch) -> list[BucketValues]:
        """What the kernel's own buckets say; a build chooses anew (``compiled.py``).

        Raises:
            NotLowered: an argument is of a type that no kernel takes.
        """
        try:
            return [
                BucketValues(when=b.when, variant=variant_of(made, b.configuration).name)
                for b in usual_buckets(made)
            ]
        except TypeError as error:
            raise NotLowered(f"kernel {made.kernel.name}: {error}") from error

    def _argument(self, value: Any, name: str) -> Argument:
        match value:
            case None:
                return None
            case Tensor():
                return TensorArgument(value=self.memory.value(value, name))
            case int() | torch.SymInt():
                return SizeArgument(size=self.memory.expressions.text(value))
            case float():
                return NumberArgument(number=value)
        raise NotLowered(f"a kernel takes {type(value).__name__}, which no plan can hold")


def _decided(when: str, sizes: Mapping[str, Any]) -> bool | None:
    """Whether a condition holds, where that is the same at all sizes of the dims."""
    numbers = {name: plain(sizes[name]) for name in names_in(when)}
    known = {name: number for name, number in numbers.items() if number is not None}
    return bool(evaluate(when, known)) if len(known) == len(numbers) else None
