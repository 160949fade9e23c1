"""Every configuration of every kernel, compiled for an architecture and read.

It works on the examples that kernels give: each is compiled with the configuration that its sizes
get, and with those that a build may choose instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strop.kernels.architecture import Architecture
from strop.kernels.compiler import CompileError
from strop.kernels.examples import launches
from strop.kernels.gate import Checked, try_and_read, violations
from strop.kernels.kernel import Configuration, Kernel, Launch
from strop.kernels.roofline import Modelled, modelled
from strop.kernels.specialization import variant_of


@dataclass(frozen=True)
class Entry:
    """One example of a kernel with one configuration.

    Attributes:
        kernel: its name.
        example: what is launched, in words.
        configuration: how the kernel is compiled.
        default: whether it is what the kernel's buckets say, not a candidate.
        checked: the compiled variant with what was read of it, or why it cannot be compiled.
        modelled: bounds of the launch; None where it cannot be compiled.
    """

    kernel: str
    example: str
    configuration: Configuration
    default: bool
    checked: Checked | CompileError
    modelled: Modelled | None

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
            "default": self.default,
            "problems": self.problems,
            **({} if isinstance(self.checked, CompileError) else _facts(self.checked)),
            "modelled": None if self.modelled is None else _bounds(self.modelled),
        }


def survey(kernels: Sequence[Kernel], architecture: Architecture) -> list[Entry]:
    """Compile the examples of kernels that the architecture can run."""
    able = [one for one in kernels if one.capability <= architecture.capability]
    wanted = list(_wanted(able))
    variants = [variant_of(launch, configuration) for _, launch, configuration, _ in wanted]
    distinct = list(dict.fromkeys(variants))
    found = dict(zip(distinct, try_and_read(distinct, architecture)))
    return [_entry(*parts, found[variant]) for parts, variant in zip(wanted, variants)]


def _wanted(kernels: Iterable[Kernel]) -> Iterator[tuple[str, Launch, Configuration, bool]]:
    for kernel in kernels:
        for name, launch in launches(kernel).items():
            usual = kernel.configuration(launch.sizes())
            yield name, launch, usual, True
            for candidate in kernel.candidates:
                if candidate != usual:
                    yield name, launch, candidate, False


def _entry(
    example: str,
    launch: Launch,
    configuration: Configuration,
    default: bool,
    checked: Checked | CompileError,
) -> Entry:
    bounds = None
    if isinstance(checked, Checked):
        bounds = modelled(checked, launch, configuration)
    return Entry(launch.kernel.name, example, configuration, default, checked, bounds)


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
