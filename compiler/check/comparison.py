"""The check: the written file in its runtime against the original module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strop.compiler.frontend.inputs import Inputs, Signature, in_contract, resize, to_array
from strop.compiler.frontend.original import run_original
from strop.compiler.ir.program import Program
from strop.compiler.recipes.recipe import Budget
from strop.compiler.targets.target import Target
from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.compiler.util.numerics import Array, row_cosine, without_shared_infinities

Run = Callable[..., Sequence[Array]]
# Large enough for masks, positions and batches to matter, small enough to run after every pass.
PROBE = 8


@dataclass(frozen=True)
class Case:
    """One set of inputs and what the original module gives for it.

    Attributes:
        rounding: by output, how far the original's rounding to 16 bits moves it, relative as a
            ``Comparison``'s error is.
    """

    name: str
    inputs: Inputs
    expected: dict[str, Array]
    rounding: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One output of one case.

    Attributes:
        max_error: largest |got - expected|, over max |expected| where that is above 1; of outputs
            that are not float the share of elements that differ. NaN and infinities that both
            hold at the same place are no difference, and do not count.
        cosine: mean cosine of the rows (last axis); None for outputs that are not float.
        finite: whether NaN or an infinity stands nowhere else than in the expected output.
        elements: how many there are.
        rounding: how far the original's own rounding to 16 bits moves the output.
    """

    case: str
    output: str
    max_error: float
    cosine: float | None
    finite: bool
    elements: int = 1
    rounding: float = 0.0

    def misses(self, budget: Budget) -> str | None:
        """What is wrong, in words, or None."""
        if not self.finite:
            return f"{self.output} holds NaN or Inf in case '{self.case}', the original elsewhere"
        if self.cosine is None:
            least = budget.least_agreement
            if 1 - self.max_error >= least:
                return None
            return (
                f"{self.output} has {1 - self.max_error:.2%} equal elements in case '{self.case}' "
                f"(budget {least:.2%})"
            )
        if budget.max_error is not None and not self.max_error <= budget.max_error + self.rounding:
            rounding = f", the original's own rounding {self.rounding:.2e}" if self.rounding else ""
            return (
                f"{self.output} is off by {self.max_error:.2e} in case '{self.case}' "
                f"(budget {budget.max_error:.2e}{rounding})"
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
        values["rounding"] = float(f"{self.rounding:.2e}")
        values["cosine"] = None if self.cosine is None else round(self.cosine, 5)
        del values["elements"]
        return values


def make_cases(
    module: torch.nn.Module, signature: Signature, calibration: Sequence[Inputs]
) -> list[Case]:
    """Reference outputs on the calibration inputs, and at sizes over the whole of the ranges.

    Raises:
        UsageError: the module itself fails, or returns no tensor, on such inputs.
    """
    cases = [
        _case(f"calibration[{i}]", module, signature, inputs)
        for i, inputs in enumerate(calibration)
    ]
    first = calibration[0]
    for label, sizes in _sizes_to_check(signature, first).items():
        text = ", ".join(f"{k}={v}" for k, v in sizes.items())
        inputs = resize(first, signature, sizes)
        cases.append(_case(f"{label}: {text}", module, signature, inputs, inputs is not first))
    return cases


def _sizes_to_check(signature: Signature, example: Inputs) -> dict[str, dict[str, int]]:
    """The smallest sizes, the largest, and odd ones between, at which divisions leave a rest.

    An unbounded dim goes to twice its example size plus one.
    """
    known, dims = signature.sizes(example), signature.dims.values()
    low = {d.name: d.min for d in dims}
    high = {d.name: 2 * known[d.name] + 1 if d.max is None else d.max for d in dims}
    between = {name: min((low[name] + high[name]) // 2 | 1, high[name]) for name in low}
    found = {"smallest": low, "between": between, "largest": high}
    new = {tuple(sizes.values()): label for label, sizes in reversed(found.items())}
    return {label: found[label] for label in found if label in new.values() and signature.dims}


def make_probe(module: torch.nn.Module, signature: Signature, inputs: Inputs) -> Case:
    """A small case to run after every pass: the inputs, dynamic dims no larger than ``PROBE``."""
    sizes = {
        dim: max(min(size, PROBE), signature.dims[dim].min)
        for dim, size in signature.sizes(inputs).items()
    }
    small = resize(inputs, signature, sizes)
    return _case("probe", module, signature, small, small is not inputs)


def _case(
    name: str, module: torch.nn.Module, signature: Signature, inputs: Inputs, resized: bool = False
) -> Case:
    try:
        outputs = run_original(module, signature, inputs)
    except Exception as error:  # the owner's module may raise anything
        said = str(error).splitlines()[0] if str(error) else ""
        raise UsageError(
            f"the module fails in case '{name}': {type(error).__name__}: {said}. "
            f"{_advice(signature, resized)}"
        ) from error
    arrays = {n: to_array(t).copy() for n, t in outputs.items()}
    if not arrays:
        raise UsageError(f"the module returns no tensor (case '{name}')")
    return Case(name, inputs, arrays)


def _advice(signature: Signature, resized: bool) -> str:
    if not resized:
        return "Check example_inputs and calibration."
    if signature.inputs_at is not None:
        return "Its inputs come from inputs_at: check that, and the ranges in `dynamic`."
    return (
        "Its inputs are the example's, cut or repeated to these sizes: if the module does not take "
        "the sizes, narrow the ranges in `dynamic`; if values depend on them (positions, lengths, "
        "indices), give Model(inputs_at=...), which returns inputs at given sizes."
    )


def compare(case: Case, got: Mapping[str, Array]) -> list[Comparison]:
    """Compare one run with its case, output by output."""
    return [
        replace(_compare(case.name, name, got[name], want), rounding=case.rounding.get(name, 0.0))
        for name, want in case.expected.items()
    ]


def _compare(case: str, output: str, got: Array, want: Array) -> Comparison:
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        raise RuntimeRefusedError(
            f"'{output}' is {got.dtype} {got.shape} in case '{case}', the original's is "
            f"{want.dtype} {want.shape}"
        )
    if want.dtype.kind != "f":
        wrong = float((got != want).mean()) if want.size else 0.0
        return Comparison(case, output, wrong, None, True, want.size)
    a, b = without_shared_infinities(got.astype(np.float64), want.astype(np.float64))
    finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
    scale = float(np.abs(b).max(initial=1.0))
    with np.errstate(invalid="ignore"):  # infinities that only one of them holds
        error = float(np.abs(a - b).max(initial=0.0)) / scale
        cosine = row_cosine(a, b)
    return Comparison(case, output, error, cosine, finite, want.size)


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
        feeds = {n: to_array(t) for n, t in case.inputs.items()}
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
        outputs = program.run(**in_contract(inputs, program.contract))
    names = [o.name for o in program.contract.outputs]
    return {name: to_array(o) for name, o in zip(names, outputs)}
