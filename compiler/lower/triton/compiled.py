"""The kernels of a traced plan: chosen by the model, compiled, and held to the gate's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strop.compiler.lower.triton.lowering import Traced
from strop.compiler.targets.target import TritonTarget
from strop.compiler.targets.triton.plan import (
    BucketValues,
    LaunchValues,
    Plan,
    SizeArgument,
    VariantValues,
)
from strop.compiler.util.errors import RuntimeRefusedError
from strop.kernels.architecture import ARCHITECTURES
from strop.kernels.compiler import CompileError
from strop.kernels.gate import Checked, GateError
from strop.kernels.kernel import Launch
from strop.kernels.selection import Taken, Timing, select
from strop.kernels.stored import Store
from strop.kernels.variant import Variant


@dataclass(frozen=True)
class Compiled:
    """A plan with its kernels.

    Attributes:
        traced: what it was made of.
        plan: complete.
        kernels: those that it names, by name.
    """

    traced: Traced
    plan: Plan
    kernels: dict[str, Checked]


def compile_plan(
    traced: Traced, target: TritonTarget, seconds: Timing, store: Store | None = None
) -> Compiled:
    """Choose the configurations of all launches, compile them, and hold them to the limits.

    Args:
        traced: the plan.
        target: what to compile for.
        seconds: how long a launch takes.
        store: where compiled kernels are kept from one build to the next.

    Raises:
        RuntimeRefusedError: a kernel cannot be compiled, or breaks a limit of the gate's with every
            configuration that it may have.
    """
    chosen = _chosen(traced.launches, target, seconds, store)
    kernels: dict[str, Checked] = {}
    for step, _ in traced.launches:
        taken = chosen[_key(step)]
        step.buckets = [BucketValues(when=t.when, variant=t.checked.variant.name) for t in taken]
        kernels |= {t.checked.variant.name: t.checked for t in taken}
    kernels = dict(sorted(kernels.items()))
    drivers = (one.binary.minimum_driver for one in kernels.values())
    plan = traced.plan.model_copy(
        update={
            "variants": {
                name: described(one.variant, one.binary.entry, one.binary.shared_memory)
                for name, one in kernels.items()
            },
            "driver": max(drivers, key=_version, default=""),
        }
    )
    return Compiled(traced, plan, kernels)


def _chosen(
    launches: Sequence[tuple[LaunchValues, Launch]],
    target: TritonTarget,
    seconds: Timing,
    store: Store | None,
) -> dict[Any, tuple[Taken, ...]]:
    """What launches take; layers repeat, and equal launches are looked at once."""
    distinct = {_key(step): launch for step, launch in launches}
    try:
        found = select(list(distinct.values()), ARCHITECTURES[target.arch], seconds, store)
    except (CompileError, GateError) as error:
        raise RuntimeRefusedError(str(error)) from error
    return dict(zip(distinct, found))


def _key(step: LaunchValues) -> Any:
    """Equal for launches with the same sizes, types and constants.

    The usual variants say the last two.
    """
    sizes = ((n, a.size) for n, a in step.arguments.items() if isinstance(a, SizeArgument))
    usual = tuple((bucket.when, bucket.variant) for bucket in step.buckets)
    return (step.kernel, tuple(sizes), usual)


def _version(driver: str) -> list[int]:
    return [int(part) for part in driver.split(".")]


def described(variant: Variant, entry: str, shared_memory: int) -> VariantValues:
    """A compiled variant as a plan describes it."""
    return VariantValues(
        kernel=variant.kernel,
        types=dict(variant.types),
        aligned=list(variant.aligned),
        constants=dict(variant.constants),
        num_warps=variant.num_warps,
        num_stages=variant.num_stages,
        entry=entry,
        shared_memory=shared_memory,
    )
