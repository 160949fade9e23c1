"""The check: the written file in its runtime against the original module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from strop.compiler.check.comparable import in_own_dtypes, real_positions
from strop.compiler.frontend.cases import Case
from strop.compiler.ir.contract import Contract
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import in_contract, run_program
from strop.compiler.recipes.budget import Budget
from strop.compiler.targets.isolation import IsolatedSession
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array, row_cosines, without_shared_infinities

_TOGETHER = 1 << 20


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
        in_torch: whether the program in torch gave it, and not the files.
    """

    case: str
    output: str
    max_error: float
    cosine: float | None
    finite: bool
    elements: int = 1
    rounding: float = 0.0
    in_torch: bool = False

    @property
    def mismatches(self) -> float | None:
        """For outputs that are not float the share of elements that differ; None for floats."""
        return self.max_error if self.cosine is None else None

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
        values["mismatches"] = values["max_error"] if self.cosine is None else None
        values["rounding"] = float(f"{self.rounding:.2e}")
        values["cosine"] = None if self.cosine is None else round(self.cosine, 5)
        del values["elements"]
        return values


def compare(
    case: Case, got: Mapping[str, Array], contract: Contract | None = None
) -> list[Comparison]:
    """Compare one run with its case, output by output.

    Args:
        case: with what the original gave.
        got: what the run gave.
        contract: of what was run; it says what is comparable.
    """
    wanted: Mapping[str, Array] = case.expected
    if contract is not None:
        got = in_own_dtypes(got, contract)
    for name, want in wanted.items():
        _require_type(case.name, name, got[name], want)
    if contract is not None:
        got, wanted = (real_positions(one, contract, case.inputs) for one in (got, wanted))
    return [
        replace(_compare(case.name, name, got[name], want), rounding=case.rounding.get(name, 0.0))
        for name, want in wanted.items()
    ]


def _require_type(case: str, output: str, got: Array, want: Array) -> None:
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        raise RuntimeRefusedError(
            f"'{output}' is {got.dtype} {got.shape} in case '{case}', the original's is "
            f"{want.dtype} {want.shape}"
        )


def _compare(case: str, output: str, got: Array, want: Array) -> Comparison:
    if want.dtype.kind != "f":
        wrong = float((got != want).mean()) if want.size else 0.0
        return Comparison(case, output, wrong, None, True, want.size)
    return _compare_floats(case, output, got, want)


def _compare_floats(case: str, output: str, got: Array, want: Array) -> Comparison:
    """In float64, a few rows at a time: outputs may be large, and their copies would be larger."""
    errors, scales, cosines, finite = [0.0], [1.0], [], True
    for part, wanted in zip(_rows(got), _rows(want)):
        a, b = without_shared_infinities(part.astype(np.float64), wanted.astype(np.float64))
        finite &= bool(np.isfinite(a).all() and np.isfinite(b).all())
        scales.append(np.abs(b).max())
        with np.errstate(invalid="ignore"):  # infinities that only one of them holds
            errors.append(np.abs(a - b).max())
            cosines.append(row_cosines(a, b))
    error = float(np.max(errors)) / float(np.max(scales))
    cosine = float(np.concatenate(cosines).mean()) if cosines else 1.0
    return Comparison(case, output, error, cosine, finite, want.size)


def _rows(array: Array) -> Iterator[Array]:
    """The rows (last axis) of an array, about ``_TOGETHER`` elements at a time."""
    if array.size == 0:
        return
    rows = np.atleast_1d(array)
    rows = rows.reshape(-1, rows.shape[-1])
    step = max(_TOGETHER // rows.shape[-1], 1)
    yield from (rows[i : i + step] for i in range(0, len(rows), step))


def check_session(
    session: IsolatedSession, cases: Sequence[Case], contract: Contract
) -> list[Comparison]:
    """Run opened files, which keep a contract, on every case.

    Raises:
        RuntimeRefusedError: the runtime does not run them.
    """
    results = []
    for case in cases:
        got = session.run(feeds_of(case, contract), f"case '{case.name}'", case.seconds)
        results += compare(case, got, contract)
    return results


def feeds_of(case: Case, contract: Contract) -> dict[str, Array]:
    """The inputs of a case as files take them that keep a contract."""
    taken = in_contract(case.inputs, contract)
    return {name: to_array(tensor) for name, tensor in taken.items()}


def check_program(program: Program, cases: Sequence[Case]) -> list[Comparison]:
    """Run a program in eager torch on every case."""
    results = []
    for case in cases:
        results += compare(case, run_program(program, case.inputs), program.contract)
    return results
