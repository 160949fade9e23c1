"""The check: the written file in its runtime against the original module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strop.compiler.errors import RuntimeRefusedError, UsageError
from strop.compiler.inputs import Inputs, Signature, resize
from strop.compiler.numerics import Array, row_cosine
from strop.compiler.original import run_original
from strop.compiler.program import Program
from strop.compiler.recipe import Budget
from strop.compiler.target import Target

Run = Callable[..., Sequence[Array]]
# Large enough for masks, positions and batches to matter, small enough to run after every pass.
PROBE = 8


@dataclass(frozen=True)
class Case:
    """One set of inputs and what the original module gives for it."""

    name: str
    inputs: Inputs
    expected: dict[str, Array]


@dataclass(frozen=True)
class Comparison:
    """One output of one case.

    Attributes:
        max_error: largest |got - expected|, over max |expected| where that is above 1; of outputs
            that are not float the share of elements that differ.
        cosine: mean cosine of the rows (last axis); None for outputs that are not float.
        finite: whether everything is finite.
        elements: how many there are.
    """

    case: str
    output: str
    max_error: float
    cosine: float | None
    finite: bool
    elements: int = 1

    def misses(self, budget: Budget) -> str | None:
        """What is wrong, in words, or None."""
        if not self.finite:
            return f"{self.output} holds NaN or Inf in case '{self.case}'"
        if self.cosine is None:
            least = budget.least_agreement
            if 1 - self.max_error >= least:
                return None
            return (
                f"{self.output} has {1 - self.max_error:.2%} equal elements in case '{self.case}' "
                f"(budget {least:.2%})"
            )
        if budget.max_error is not None and not self.max_error <= budget.max_error:
            return (
                f"{self.output} is off by {self.max_error:.2e} in case '{self.case}' "
                f"(budget {budget.max_error:.2e})"
            )
        if budget.min_cosine is None or self.cosine >= budget.min_cosine:
            return None
        return (
            f"{self.output} has cosine {self.cosine:.5f} in case '{self.case}' "
            f"(budget {budget.min_cosine})"
        )

    def record(self) -> dict[str, Any]:
        """For the manifest: three significant digits."""
        values = asdict(self)
        values["max_error"] = float(f"{self.max_error:.2e}")
        values["cosine"] = None if self.cosine is None else round(self.cosine, 5)
        del values["elements"]
        return values


def make_cases(
    module: torch.nn.Module, signature: Signature, calibration: Sequence[Inputs]
) -> list[Case]:
    """Reference outputs on the calibration inputs, and at the smallest and largest sizes.

    An unbounded dim goes to twice its example size plus one.

    Raises:
        UsageError: the module itself fails, or gives NaN or Inf, on such inputs.
    """
    cases = [
        _case(f"calibration[{i}]", module, signature, inputs)
        for i, inputs in enumerate(calibration)
    ]
    if signature.dims:
        first = calibration[0]
        known = {
            dim: first[name].shape[axis]
            for name, axes in signature.axes.items()
            for axis, dim in axes.items()
        }
        low = {d.name: d.min for d in signature.dims.values()}
        high = {d.name: d.max or 2 * known[d.name] + 1 for d in signature.dims.values()}
        for label, sizes in (("smallest", low), ("largest", high)):
            text = ", ".join(f"{k}={v}" for k, v in sizes.items())
            inputs = resize(first, signature, sizes)
            cases.append(_case(f"{label}: {text}", module, signature, inputs))
    return cases


def make_probe(module: torch.nn.Module, signature: Signature, inputs: Inputs) -> Case:
    """A small case to run after every pass: the inputs, dynamic dims no larger than ``PROBE``."""
    sizes = {
        dim: max(min(inputs[name].shape[axis], PROBE), signature.dims[dim].min)
        for name, axes in signature.axes.items()
        for axis, dim in axes.items()
    }
    return _case("probe", module, signature, resize(inputs, signature, sizes))


def _case(name: str, module: torch.nn.Module, signature: Signature, inputs: Inputs) -> Case:
    try:
        outputs = run_original(module, signature, inputs)
    except Exception as error:
        raise UsageError(
            f"the module itself fails on its inputs (case '{name}'): {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}. Check example_inputs, "
            "calibration and the ranges in `dynamic`."
        ) from error
    arrays = {n: t.detach().numpy().copy() for n, t in outputs.items()}
    if not arrays:
        raise UsageError(f"the module returns no tensor (case '{name}')")
    for output, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UsageError(
                f"the original module gives NaN or Inf in '{output}' (case '{name}'); "
                "nothing built from it could be checked"
            )
    return Case(name, inputs, arrays)


def compare(case: Case, got: Mapping[str, Array]) -> list[Comparison]:
    """Compare one run with its case, output by output."""
    return [_compare(case.name, name, got[name], want) for name, want in case.expected.items()]


def _compare(case: str, output: str, got: Array, want: Array) -> Comparison:
    if got.shape != want.shape:
        raise RuntimeRefusedError(
            f"'{output}' has shape {got.shape} in case '{case}', the original has {want.shape}"
        )
    if want.dtype.kind != "f":
        wrong = float((got != want).mean()) if want.size else 0.0
        return Comparison(case, output, wrong, None, True, want.size)
    a, b = got.astype(np.float64), want.astype(np.float64)
    scale = max(1.0, float(np.abs(b).max(initial=0.0)))
    error = float(np.abs(a - b).max(initial=0.0)) / scale
    return Comparison(case, output, error, row_cosine(a, b), bool(np.isfinite(a).all()), want.size)


def open_session(path: Path, target: Target) -> Any:
    """A default ONNX Runtime session on the file.

    Raises:
        RuntimeRefusedError: the runtime does not take the model.
    """
    import onnxruntime as ort

    try:
        return ort.InferenceSession(str(path), providers=list(target.providers))
    except Exception as error:
        raise RuntimeRefusedError(f"ONNX Runtime does not load the model: {error}") from error


def runtime_version() -> str:
    """The version of the runtime that checks and runs artifacts."""
    import onnxruntime as ort

    version: str = ort.__version__
    return version


def check_file(path: Path, target: Target, cases: Sequence[Case]) -> list[Comparison]:
    """Load the file in a default session and run every case.

    Raises:
        RuntimeRefusedError: the runtime does not load or run the model.
    """
    session = open_session(path, target)
    results = []
    for case in cases:
        feeds = {n: t.numpy() for n, t in case.inputs.items()}
        results += compare(case, run_session(session, feeds, f"case '{case.name}'"))
    return results


def run_session(session: Any, feeds: Mapping[str, Array], what: str) -> dict[str, Array]:
    """Run once, on those of the inputs that the file takes; outputs by name.

    Raises:
        RuntimeRefusedError: the runtime does not run the model.
    """
    used = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    try:
        outputs = session.run(None, {n: a for n, a in feeds.items() if n in used})
    except Exception as error:
        raise RuntimeRefusedError(
            f"ONNX Runtime does not run the model ({what}): {error}"
        ) from error
    return dict(zip(names, outputs))


def check_program(program: Program, cases: Sequence[Case]) -> list[Comparison]:
    """Run a program in eager torch on every case."""
    return [r for case in cases for r in compare(case, run_program(program, case.inputs))]


def run_program(program: Program, inputs: Inputs) -> dict[str, Array]:
    """Run a program in eager torch; outputs by name."""
    with torch.no_grad():
        outputs = program.run(**inputs)
    names = [o.name for o in program.contract.outputs]
    return {name: o.detach().numpy() for name, o in zip(names, outputs)}
