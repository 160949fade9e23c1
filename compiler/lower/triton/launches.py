"""Recorded launches as steps of a plan, and the variants of kernels that they need."""

from __future__ import annotations

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
from strop.kernels.kernel import Bucket, Launch
from strop.kernels.launching import Choice, Recorded
from strop.kernels.specialization import variant_of
from strop.kernels.variant import Variant


class Launches:
    """Makes steps of what launchers recorded.

    Attributes:
        variants: every one that a step names, by its name.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.variants: dict[str, Variant] = {}

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
        return LaunchValues(
            kind="launch",
            node=node,
            makes={},
            kernel=made.kernel.name,
            arguments=arguments,
            grid=list(made.kernel.grid),
            buckets=self._buckets(made),
        )

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

    def _buckets(self, made: Launch) -> list[BucketValues]:
        """A variant for each bucket that may hold; the last one holds always."""
        known = {**made.arguments, **made.constants}
        kept: list[tuple[str, Bucket]] = []
        for bucket in made.kernel.buckets:
            decided = _decided(bucket.when, known)
            if decided is not False:
                kept.append(("" if decided else bucket.when, bucket))
            if decided:
                break
        return [
            BucketValues(when=when, variant=self._variant(made, bucket)) for when, bucket in kept
        ]

    def _variant(self, made: Launch, bucket: Bucket) -> str:
        try:
            variant = variant_of(made, bucket.configuration)
        except TypeError as error:
            raise NotLowered(f"kernel {made.kernel.name}: {error}") from error
        self.variants[variant.name] = variant
        return variant.name


def _decided(when: str, sizes: Any) -> bool | None:
    """Whether a condition holds, where that is the same at all sizes of the dims."""
    if not when:
        return True
    fixed = {name: _fixed(sizes[name]) for name in names_in(when)}
    numbers = {name: number for name, number in fixed.items() if number is not None}
    return bool(evaluate(when, numbers)) if len(numbers) == len(fixed) else None


def _fixed(size: Any) -> int | None:
    if isinstance(size, torch.SymInt):
        number = size.node.maybe_as_int()
        return None if number is None else int(number)
    return int(size)
