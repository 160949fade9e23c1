"""Checks that a bisection asks: is this program still good?"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from strop.compiler.check.comparable import comparable
from strop.compiler.frontend.cases import Case
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import run_program
from strop.compiler.ir.stale import verify_types
from strop.compiler.lower.lowering import lowering_of
from strop.compiler.targets.target import Target
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.numerics import Array, Drift, drift

# Measures of a Drift, and whether more of it is better.
METRICS = {"cosine": True, "sqnr_db": True, "agreement": True, "max_abs": False}
# Those that are not defined for outputs that are not float.
OF_FLOATS = ("cosine", "sqnr_db")
# What a check exits with when it cannot tell, as in `git bisect run`.
CANNOT_TELL = 125


@dataclass(frozen=True)
class Verdict:
    """Whether a program is good, and why it is said so."""

    good: bool
    reason: str


class Check(ABC):
    """A question to ask of a program.

    Attributes:
        repeats: how often the ends of a search are asked, to find out that the check is flaky.
    """

    repeats: int = 1

    @abstractmethod
    def ask(self, program: Program, again: Program) -> Verdict:
        """Judge a program; ``again`` is what the same passes made of the same input once more."""


@dataclass(frozen=True)
class Metric(Check):
    """Outputs in eager torch against the original's, by one measure; all cases must hold.

    A program that is not typed as it runs, or not the same twice, is bad whatever it gives.
    """

    cases: Sequence[Case]
    name: str
    bound: float

    def __post_init__(self) -> None:
        if self.name not in METRICS:
            raise UsageError(
                f"unknown metric '{self.name}'{did_you_mean(self.name, list(METRICS))}"
            )
        outputs = [a for case in self.cases for a in case.expected.values()]
        if self.name in OF_FLOATS and not any(a.dtype.kind == "f" for a in outputs):
            raise UsageError(
                f"the model has no output of floats, and so no {self.name}: take agreement"
            )

    def ask(self, program: Program, again: Program) -> Verdict:
        """Run both on every case."""
        try:
            verify_types(program)
            found = [self._measure(case, program, again) for case in self.cases]
        except Exception as error:  # whatever a wrong graph raises when it runs
            return Verdict(False, f"it does not run: {first_line(error)}")
        bad = next((reason for reason, good in found if not good), None)
        return Verdict(bad is None, bad or found[0][0])

    def _measure(self, case: Case, program: Program, again: Program) -> tuple[str, bool]:
        got, twice = run_program(program, case.inputs), run_program(again, case.inputs)
        changing = [n for n in got if not _same(got[n], twice[n])]
        if changing:
            return f"'{changing[0]}' is not the same twice (case '{case.name}')", False
        got, wanted = (
            comparable(one, program.contract, case.inputs) for one in (got, case.expected)
        )
        answers = [
            self._judge(drift({n: got[n]}, {n: want}), case.name)
            for n, want in wanted.items()
            if want.dtype.kind == "f" or self.name not in OF_FLOATS
        ]
        return min(answers, key=lambda answer: answer[1])

    def _judge(self, found: Drift, case: str) -> tuple[str, bool]:
        """One output."""
        if not found.finite:
            return f"'{found.output}' holds NaN or Inf (case '{case}')", False
        value = getattr(found, self.name)
        if value is None:
            return f"{self.name} of equal outputs", True
        good = value >= self.bound if METRICS[self.name] else value <= self.bound
        return f"{self.name} {value:.5g} of '{found.output}' (case '{case}')", good


def _same(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


@dataclass(frozen=True)
class Command(Check):
    """A command of the user's on the program lowered to ONNX; it exits with 0 where all is well.

    ``{}`` in the command is the path of the ONNX file, which is in ``STROP_MODEL`` too.
    """

    command: str
    target: Target
    repeats: int = 2

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise UsageError(f"--check {self.command!r} cannot be read: {error}") from error
        if not words:
            raise UsageError("--check: there is no command")

    def ask(self, program: Program, again: Program) -> Verdict:
        """Lower the program and run the command."""
        with tempfile.TemporaryDirectory(prefix="strop-check-") as folder:
            try:
                files = lowering_of(self.target).lower(program, self.target).write(Path(folder))
            except OSError as error:
                raise UsageError(f"the temporary folder cannot be used: {error}") from error
            except Exception as error:  # whatever a wrong graph raises when it is lowered
                return Verdict(False, f"it cannot be lowered: {first_line(error)}")
            return self._run(Path(folder) / files[0])

    def _run(self, path: Path) -> Verdict:
        words = [w.replace("{}", str(path)) for w in shlex.split(self.command)]
        try:
            done = subprocess.run(
                words, env=os.environ | {"STROP_MODEL": str(path)}, capture_output=True, text=True,
                errors="replace", check=False,
            )  # fmt: skip
        except OSError as error:
            raise UsageError(f"--check cannot be run: {error}") from error
        if done.returncode == CANNOT_TELL:
            raise UsageError(f"--check exited with {CANNOT_TELL}: it cannot tell good from bad")
        said = (done.stdout + done.stderr).strip().splitlines()
        last = f": {said[-1]}" if said else ""
        return Verdict(done.returncode == 0, f"the check exited with {done.returncode}{last}")


def first_line(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
