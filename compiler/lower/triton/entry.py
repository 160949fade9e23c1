"""Launch plans as a ``Lowering``: programs in, a plan with kernels and weights out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.constants import evaluate
from strop.compiler.ir.printer import module_path, source_line
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.lowering import Lowering
from strop.compiler.lower.provenance import CAPTURE, Provenance
from strop.compiler.lower.shared import SharedWeights
from strop.compiler.lower.triton.compiled import Compiled, compile_plan
from strop.compiler.lower.triton.lowering import lower_to_plan
from strop.compiler.lower.triton.store import KernelStore, kernel_cache
from strop.compiler.lower.triton.write import write_plan
from strop.compiler.targets.target import MAIN, Target, TritonTarget
from strop.compiler.targets.triton.plan import ExternValues, LaunchValues, Step
from strop.compiler.util.errors import UsageError
from strop.kernels.architecture import ARCHITECTURES
from strop.kernels.estimate import estimated_seconds
from strop.kernels.measure import MeasureError, measured_seconds, need_device


class LoweredToPlan:
    """A plan with its kernels, whose weights are read when it is written."""

    def __init__(self, compiled: Compiled, program: Program, target: TritonTarget) -> None:
        self._compiled, self._program, self._arch = compiled, program, target.arch

    def write(
        self, folder: Path, program: str = MAIN, shared: SharedWeights | None = None
    ) -> list[str]:
        """Write the plan, its weights and its kernels; a folder takes one program."""
        return write_plan(self._compiled, self._arch, self._weight, folder)

    def _weight(self, name: str) -> Tensor:
        return evaluate(self._compiled.traced.weights[name], self._program)

    @property
    def prefill(self) -> str:
        """A plan chooses by the number of tokens itself."""
        return ""

    @property
    def shared_caches(self) -> frozenset[str]:
        """None: a plan makes longer caches anew."""
        return frozenset()

    @property
    def copied_caches(self) -> dict[str, str]:
        """None that anybody asked for."""
        return {}

    def provenance(self) -> list[Provenance]:
        """Where every step comes from, in order."""
        traced = self._compiled.traced
        return [_of(step, node) for step, node in zip(traced.plan.steps, traced.origins)]


def _of(step: Step, node: Node) -> Provenance:
    return Provenance(
        name=step.node,
        op=_op(step),
        values=tuple(step.makes),
        ir=node.name,
        rule=node.meta.get("made_by", CAPTURE),
        line=source_line(node),
        module=module_path(node),
    )


def _op(step: Step) -> str:
    match step:
        case LaunchValues():
            return step.kernel
        case ExternValues():
            return step.operator
    return _op(step.then[0])


class TritonLowering:
    """Lowers to a launch plan by the table of this room."""

    def lower(
        self, program: Program, target: Target, choices: Choices | None = None
    ) -> LoweredToPlan:
        """Lower a program for GPUs of one architecture.

        Where choices are given, by ``tuned``, the configurations of its kernels are measured on the
        GPU here; else a model chooses them.
        """
        assert isinstance(target, TritonTarget)
        seconds = estimated_seconds if choices is None else measured_seconds
        traced = lower_to_plan(program, target.name)
        compiled = compile_plan(traced, target, seconds, KernelStore(kernel_cache()))
        return LoweredToPlan(compiled, program, target)

    def tuned(self, target: Target, progress: Callable[[str], None]) -> Choices:
        """No emitters to choose from: what is measured depends on the program that is lowered."""
        assert isinstance(target, TritonTarget)
        try:
            need_device(ARCHITECTURES[target.arch])
        except MeasureError as error:
            raise UsageError(f"--tune: {error}") from error
        return Choices({})


LOWERING: Lowering = TritonLowering()
