"""What a peer's own launcher launches, recorded in place of being run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from strop.kernels.kernel import Configuration, Cost, Kernel, Launch
from strop.kernels.specialization import variant_of
from strop.kernels.variant import Variant

# Triton's defaults.
_WARPS, _STAGES = 4, 3


@dataclass(frozen=True)
class Recorded:
    """One launch, with one of the configurations that the peer's tuner would try.

    Attributes:
        function: the decorated function.
        given: all of its arguments, by name.
        configuration: those of them that the tuner chose, with warps and stages.
        grid: the number of programs.
        num_warps: of a program.
        num_stages: loads in flight in a pipelined loop.
    """

    function: Any
    given: Mapping[str, Any]
    configuration: Mapping[str, Any]
    grid: tuple[int, ...]
    num_warps: int
    num_stages: int

    def variant(self) -> Variant:
        """What Triton would compile for it; a number that is 1 is a constant to it."""
        constant = {p.name for p in self.function.params if p.is_constexpr}
        constant |= {n for n, value in self.given.items() if isinstance(value, int) and value == 1}
        constant |= {n for n, value in self.given.items() if isinstance(value, bool)}
        arguments = {n: value for n, value in self.given.items() if n not in constant}
        values = {n: value for n, value in self.given.items() if n in constant}
        kernel = Kernel("peer", self.function, (), (), lambda sizes, itemsizes: Cost(0, 0))
        configuration = Configuration({}, self.num_warps, self.num_stages)
        return variant_of(Launch(kernel, arguments, values), configuration)

    def run(self) -> None:
        """Launch it after all, where kernels are interpreted."""
        given = {n: _Number(v) if isinstance(v, float) else v for n, v in self.given.items()}
        self.function[self.grid](**given)


class _Number(float):
    """A float that can be converted, as on a GPU: the interpreter hands floats on as they are."""

    def to(self, dtype: object) -> float:
        """Itself: the interpreter computes with it in any dtype."""
        return self


class Recorder:
    """Stands in a peer's module in place of a kernel.

    Attributes:
        launches: one for each configuration.
    """

    def __init__(self, kernel: Any, fixed: Mapping[str, Any] | None = None) -> None:
        """For a kernel; with a configuration, it is recorded with this one alone."""
        self._tuner, self._heuristics, self._function = _layers(kernel)
        self._fixed = fixed
        self.launches: list[Recorded] = []

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return partial(self._record, grid)

    def _record(self, grid: Any, *positional: Any, **named: Any) -> None:
        parameters = inspect.signature(self._function.fn).parameters
        first = dict(zip(parameters, positional))
        defaults = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
        for chosen in self._configurations(first, named):
            full = {**defaults, **first, **named, **chosen}
            for values in self._heuristics:
                full.update({name: value(full) for name, value in values.items()})
            given = {name: full[name] for name in parameters}
            programs = grid(full) if callable(grid) else grid
            warps, stages = full.get("num_warps", _WARPS), full.get("num_stages", _STAGES)
            self.launches.append(Recorded(self._function, given, chosen, programs, warps, stages))

    def _configurations(
        self, positional: dict[str, Any], named: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        if self._fixed is not None:
            yield dict(self._fixed)
            return
        if self._tuner is None:
            yield {}
            return
        self._tuner.nargs = positional
        for chosen in self._tuner.prune_configs(named):
            yield {name: value for name, value in chosen.all_kwargs().items() if value is not None}


def _layers(kernel: Any) -> tuple[Any, list[Mapping[str, Any]], Any]:
    """The tuner, what computes constants, and the function of a decorated kernel."""
    tuner, heuristics = None, []
    while not inspect.isfunction(kernel.fn):
        if hasattr(kernel, "prune_configs"):
            tuner = kernel
        elif hasattr(kernel, "values"):
            heuristics.append(kernel.values)
        kernel = kernel.fn
    return tuner, heuristics, kernel
