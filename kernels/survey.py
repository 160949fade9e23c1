"""Every kernel at representative launches, compiled for an architecture, read, and chosen from.

Each example of a kernel is compiled with the configuration that its sizes get by the kernel's
buckets, and with the candidates; one of these is taken, as a build would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strop.kernels.architecture import Architecture
from strop.kernels.compiler import CompileError
from strop.kernels.estimate import estimated_seconds
from strop.kernels.examples import launches
from strop.kernels.gate import Checked, GateError, violations
from strop.kernels.kernel import Configuration, Kernel, Launch
from strop.kernels.roofline import Modelled, modelled
from strop.kernels.selection import Tried, taken, try_all
from strop.kernels.specialization import variant_of


@dataclass(frozen=True)
class Entry:
    """One configuration that an example of a kernel may take.

    Attributes:
        kernel: its name.
        example: what is launched, in words.
        configuration: how the kernel is compiled.
        taken: whether a build takes it.
        checked: the compiled variant with what was read of it, or why it cannot be compiled.
        modelled: bounds of the launch; None where it cannot be compiled.
        estimated: seconds by the model that configurations are ranked with; None without one.
    """

    kernel: str
    example: str
    configuration: Configuration
    taken: bool
    checked: Checked | CompileError
    modelled: Modelled | None
    estimated: float | None

    @property
    def problems(self) -> list[str]:
        """Why it may not be shipped."""
        if isinstance(self.checked, CompileError):
            return [str(self.checked)]
        return [str(violation) for violation in violations(self.checked)]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "kernel": self.kernel,
            "example": self.example,
            "configuration": asdict(self.configuration),
            "taken": self.taken,
            "problems": self.problems,
            **({} if isinstance(self.checked, CompileError) else _facts(self.checked)),
            "modelled": None if self.modelled is None else _bounds(self.modelled),
            "estimated_seconds": self.estimated,
        }


@dataclass(frozen=True)
class Row:
    """One example of a kernel.

    Attributes:
        entries: what it may take: first what the kernel's buckets say, then the candidates that
            may be faster by the model.
        problem: why it can take none of these; "" if it can.
    """

    entries: Sequence[Entry]
    problem: str


def survey(kernels: Sequence[Kernel], architecture: Architecture) -> list[Row]:
    """Compile the examples of those kernels that run on an architecture."""
    here = architecture.capability
    able = [one.on(here) for one in kernels if one.capability <= here]
    examples = [(name, made) for one in able for name, made in launches(one).items()]
    tried = try_all([made for _, made in examples], architecture)
    return [_row(name, made, tried) for name, made in examples]


def _row(example: str, launch: Launch, tried: Tried) -> Row:
    chosen, problem = None, ""
    try:
        (one,) = taken(launch, tried)
        chosen = one.configuration
    except (CompileError, GateError) as error:
        problem = str(error)
    entries = [
        _entry(example, launch, option, option == chosen, tried)
        for option in _options(launch)
        if variant_of(launch, option) in tried
    ]
    return Row(entries, problem)


def _options(launch: Launch) -> Iterator[Configuration]:
    usual = launch.kernel.configuration(launch.sizes())
    yield usual
    yield from (one for one in launch.kernel.candidates if one != usual)


def _entry(
    example: str, launch: Launch, configuration: Configuration, chosen: bool, tried: Tried
) -> Entry:
    checked = tried[variant_of(launch, configuration)]
    bounds, seconds = None, None
    if isinstance(checked, Checked):
        bounds = modelled(checked, launch, configuration)
        seconds = estimated_seconds(checked, launch, configuration)
    return Entry(launch.kernel.name, example, configuration, chosen, checked, bounds, seconds)


def _facts(checked: Checked) -> dict[str, Any]:
    return {
        "variant": checked.variant.to_json(),
        "name": checked.variant.name,
        "architecture": checked.architecture.name,
        "triton": checked.binary.triton,
        "minimum_driver": checked.binary.minimum_driver,
        "dots": list(checked.binary.dots),
        "reading": asdict(checked.reading),
        "occupancy": asdict(checked.occupancy),
    }


def _bounds(bounds: Modelled) -> dict[str, Any]:
    return asdict(bounds) | {"seconds": bounds.seconds, "limiter": bounds.limiter}
