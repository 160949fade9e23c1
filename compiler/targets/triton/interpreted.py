"""A plan run by Triton's interpreter, step by step on the CPU: right, and very slow.

Triton's interpreter and its compiler cannot live in one process, so it runs in one of its own.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path

from strop.compiler.targets.isolation import IsolatedSession
from strop.compiler.targets.target import MAIN, PLAN_FILE, Target
from strop.compiler.targets.triton.plan import read_plan
from strop.compiler.util.child import Child
from strop.compiler.util.errors import UsageError
from strop.compiler.util.limits import available_memory
from strop.compiler.util.numerics import Array

# Seconds that an interpreted program takes, and operations that it does in one: about 10 ms went to
# a program of a norm, and 2 s to a product of 64x384x384 (2-core x86-64).
_PROGRAM, _OPERATIONS = 0.01, 5e7


def seconds(folder: Path, feeds: Mapping[str, Array]) -> float:
    """About how long one run takes: by the programs and the operations of its launches.

    Raises:
        UsageError: the plan is damaged.
    """
    from strop.compiler.targets.triton.bound import BoundLaunch, bind, sizes_of
    from strop.kernels.registry import kernel

    plan = read_plan(folder / PLAN_FILE)
    bound = bind(plan, sizes_of(plan, [feeds[known.name].shape for known in plan.inputs]))
    spent = 0.0
    for step in bound.steps:
        if isinstance(step, BoundLaunch):
            sizes = {n: bound.views[v].dtype.itemsize for n, v in step.views().items()}
            cost = kernel(step.variant.kernel).cost(step.numbers(), sizes)
            spent += _PROGRAM * math.prod(step.grid) + cost.operations / _OPERATIONS
    return spent


class InterpretedSession(IsolatedSession):
    """A ``Session`` whose launches are interpreted in another process."""

    def __init__(self, folder: Path, target: Target) -> None:
        warnings.warn(
            f"there is no CUDA device: kernels for {target.name} are run by Triton's interpreter, "
            "thousands of times slower than on a GPU",
            RuntimeWarning,
            stacklevel=2,
        )
        try:
            child = Child("strop.compiler.targets.triton.interpreter:serve", available_memory())
        except OSError as error:
            raise UsageError(f"no process can be started to run the plan in: {error}") from error
        weakref.finalize(self, child.end)
        super().__init__(child, folder, target, MAIN)

    def values(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What each step makes, by the name of the step's value in the program."""
        used = {name: feeds[name] for name in self.inputs}
        return self.ask({"values": True}, used, "compute all values")[1]
