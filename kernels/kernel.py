"""What a kernel is: its function, how it is divided into programs, and how it may be compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from strop.kernels.expression import evaluate

Scalar = int | float
Constant = int | bool | str


@dataclass(frozen=True)
class Configuration:
    """One way to compile a kernel.

    Attributes:
        constants: tile sizes and the like, by the names of the kernel's constants.
        num_warps: warps of 32 threads that work on one program.
        num_stages: loads in flight in a pipelined loop.
    """

    constants: Mapping[str, int]
    num_warps: int = 4
    num_stages: int = 1


@dataclass(frozen=True)
class Bucket:
    """A configuration, and for which sizes it is taken.

    Attributes:
        when: a condition on the launch's whole numbers, such as ``rows <= 16``; "" for all.
        since: the least compute capability that it is for, such as 90.
    """

    when: str
    configuration: Configuration
    since: int = 0

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it is for these sizes."""
        return not self.when or bool(evaluate(self.when, sizes))


@dataclass(frozen=True)
class Cost:
    """What a launch has to do at least.

    Attributes:
        operations: a multiplication with its addition is two.
        bytes: every input read once and every output written once.
    """

    operations: int
    bytes: int


# By a launch's whole numbers and constants, and by bytes of an element for each tensor.
Costing = Callable[[Mapping[str, int], Mapping[str, int]], Cost]
# By a launch's whole numbers and constants.
Counting = Callable[[Mapping[str, int]], int]


@dataclass(frozen=True)
class Kernel:
    """A Triton kernel.

    Attributes:
        name: as the registry, plans and reports call it.
        function: the decorated function.
        grid: the number of programs along each axis: expressions over the launch's whole
            numbers and constants.
        buckets: which configuration is taken at which sizes; the last one is for all.
        cost: of a launch with these whole numbers, constants and bytes of an element by argument.
        candidates: further configurations, from which a build or a measurement may choose.
        examples: representative launches by name, which the static gate compiles: calls of the
            launcher on ``strop.kernels.examples.tensor``.
        capability: ten times the least compute capability that it runs on.
        axis: the argument by whose size a build chooses among configurations; "" where it takes
            what the buckets say.
        share: what one program does on average, whole tiles counted; like ``cost``. None where
            that is not told, so that no model can rank configurations.
        sums: how many sums of 32 bits a program holds in registers until its end, so that no more
            programs run at a time than have room for theirs. None where that is not told.
    """

    name: str
    function: Any
    grid: Sequence[str]
    buckets: Sequence[Bucket]
    cost: Costing
    candidates: Sequence[Configuration] = field(default=())
    examples: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    capability: int = 80
    axis: str = ""
    share: Costing | None = None
    sums: Counting | None = None

    def on(self, capability: int) -> Kernel:
        """The kernel with those buckets alone that are for a compute capability."""
        return replace(self, buckets=[b for b in self.buckets if b.since <= capability])

    def configurations(self) -> list[Configuration]:
        """Every configuration that may be compiled, each once."""
        found: list[Configuration] = []
        for configuration in [*(b.configuration for b in self.buckets), *self.candidates]:
            if configuration not in found:
                found.append(configuration)
        return found

    def configuration(self, sizes: Mapping[str, int]) -> Configuration:
        """What the buckets say for these sizes."""
        return next(b.configuration for b in self.buckets if b.holds(sizes))

    def programs(self, sizes: Mapping[str, int]) -> tuple[int, int, int]:
        """The grid for these whole numbers and constants."""
        x, y, z = ([evaluate(text, sizes) for text in self.grid] + [1, 1])[:3]
        return x, y, z


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        arguments: by name, in the order of the function's parameters: tensors, numbers, or None
            for an optional tensor that is not there.
        constants: compile-time values apart from those of a configuration.
    """

    kernel: Kernel
    arguments: Mapping[str, Any]
    constants: Mapping[str, Constant]

    def sizes(self) -> dict[str, int]:
        """Its whole numbers by name: arguments and constants."""
        given = {**self.arguments, **self.constants}
        return {k: v for k, v in given.items() if isinstance(v, int)}

    def itemsizes(self) -> dict[str, int]:
        """Bytes of an element, by the names of the tensors that are there."""
        given = self.arguments.items()
        return {k: v.element_size() for k, v in given if isinstance(v, Tensor)}
