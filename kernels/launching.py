"""Launches: run on tensors, or recorded where the tensors are fake.

A launcher is a plain function in torch that calls ``launch``. On a GPU Triton compiles the kernel
and runs it; with ``TRITON_INTERPRET=1`` it is run step by step on the CPU. Within ``recording``
nothing runs: the launches are kept, with fake tensors and symbolic sizes, and become the plan of an
artifact. So the plan and the tests go through the same launcher.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from strop.kernels.expression import evaluate
from strop.kernels.kernel import Configuration, Constant, Kernel, Launch

if os.environ.get("TRITON_INTERPRET") == "1":
    from strop.kernels.interpreted import let_loops_count

    let_loops_count()


@dataclass(frozen=True)
class Choice:
    """Launches of which either the first or the second list is made, by a condition on sizes."""

    when: str
    sizes: Mapping[str, Any]
    then: list[Launch | Choice]
    otherwise: list[Launch | Choice]


Recorded = list[Launch | Choice]
_RECORDED: ContextVar[Recorded | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[Recorded]:
    """Launches made within the block are kept in the list, and not run."""
    kept: Recorded = []
    token = _RECORDED.set(kept)
    try:
        yield kept
    finally:
        _RECORDED.reset(token)


def launch(
    kernel: Kernel,
    arguments: Mapping[str, Any],
    constants: Mapping[str, Constant] | None = None,
    configuration: Configuration | None = None,
) -> None:
    """Launch a kernel on the current device, or record it.

    Args:
        kernel: what to launch.
        arguments: by name, in the order of the function's parameters.
        constants: compile-time values apart from those of a configuration.
        configuration: by default what the kernel's buckets say for these sizes.
    """
    made = Launch(kernel, dict(arguments), dict(constants or {}))
    kept = _RECORDED.get()
    if kept is not None:
        kept.append(made)
    else:
        _run(made, configuration)


def either(
    when: str,
    sizes: Mapping[str, Any],
    then: Callable[[], None],
    otherwise: Callable[[], None],
) -> None:
    """Make the launches of one of two functions, by a condition on sizes; recorded are both.

    Args:
        when: the condition, such as ``rows <= 16``.
        sizes: what its names stand for.
        then: makes launches where it holds.
        otherwise: makes launches where it does not.
    """
    kept = _RECORDED.get()
    if kept is None:
        (then if evaluate(when, sizes) else otherwise)()
        return
    with recording() as first:
        then()
    with recording() as second:
        otherwise()
    kept.append(Choice(when, dict(sizes), first, second))


def _run(made: Launch, configuration: Configuration | None) -> None:
    sizes = made.sizes()
    chosen = configuration or made.kernel.on(_capability()).configuration(sizes)
    programs = made.kernel.programs({**sizes, **chosen.constants})
    # A grid without programs is an error of the driver; there is nothing to do.
    if 0 in programs:
        return
    made.kernel.function[programs](
        *made.arguments.values(),
        **made.constants,
        **chosen.constants,
        num_warps=chosen.num_warps,
        num_stages=chosen.num_stages,
    )


@cache
def _capability() -> int:
    """The compute capability of the current GPU, such as 90; where there is none, that of sm80."""
    if not torch.cuda.is_available():
        return 80
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
