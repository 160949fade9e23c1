"""The least time that a launch can take, *modelled*: nothing here is measured.

Source: Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures", CACM 52(4), 2009. A launch takes no less than its bytes over the memory's
bandwidth, and no less than its operations over the rate of the units that do them. Operations are
done where the program runs, so the multiprocessor that gets the most programs decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from strop.kernels.architecture import Architecture
from strop.kernels.expression import cdiv
from strop.kernels.gate import Checked
from strop.kernels.kernel import Configuration, Cost, Launch

# How Triton's intermediate language calls the factors of a product, and whose rate counts.
_FACTORS = {"f16": "fp16", "bf16": "bf16", "f32": "tf32", "i8": "i8", "f8E4M3FN": "fp8e4nv"}
_FACTOR = re.compile(r"x([a-z]\w*)")


@dataclass(frozen=True)
class Modelled:
    """What a launch has to do, and how long that takes at least.

    Attributes:
        programs: how many there are.
        waves: how often all multiprocessors are filled with them; below 1 they never are.
        balance: the mean number of programs of a multiprocessor over the largest number.
        cost: bytes and operations that the launch cannot do without.
        memory_seconds: bytes over the memory's bandwidth.
        operation_seconds: operations over the rate of the units, and over the balance.
    """

    programs: int
    waves: float
    balance: float
    cost: Cost
    memory_seconds: float
    operation_seconds: float

    @property
    def seconds(self) -> float:
        """The bound."""
        return max(self.memory_seconds, self.operation_seconds)

    @property
    def limiter(self) -> Literal["bytes", "operations"]:
        """Which of the two it is."""
        return "bytes" if self.memory_seconds >= self.operation_seconds else "operations"


def modelled(checked: Checked, launch: Launch, configuration: Configuration) -> Modelled:
    """The bound of a launch.

    Args:
        checked: the variant of this launch and configuration.
        launch: all of its sizes are plain numbers.
        configuration: what it was compiled with.
    """
    architecture, kernel = checked.architecture, launch.kernel
    sizes = {**launch.sizes(), **configuration.constants}
    x, y, z = kernel.programs(sizes)
    programs = x * y * z
    cost = kernel.cost(sizes, launch.itemsizes())
    slots = architecture.multiprocessors * checked.occupancy.blocks
    balance = _balance(programs, architecture.multiprocessors)
    return Modelled(
        programs,
        programs / slots if slots else float("inf"),
        balance,
        cost,
        cost.bytes / architecture.bandwidth,
        cost.operations / rate(architecture, checked.binary.dots) / balance,
    )


def rate(architecture: Architecture, dots: tuple[str, ...]) -> float:
    """Operations a second: of tensor cores where matrices are multiplied, else of float32.

    Where factors have different dtypes, the slowest product counts.
    """
    factors = {_FACTORS.get(found, "") for dot in dots for found in _FACTOR.findall(dot)}
    rates = [architecture.rates[name] for name in factors if name in architecture.rates]
    return min(rates, default=architecture.vector_rate)


def _balance(programs: int, multiprocessors: int) -> float:
    if not programs:
        return 1.0
    return programs / (multiprocessors * cdiv(programs, multiprocessors))
