"""Which tests of a file execute which lines, recorded while they run."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import coverage
import pytest

from strop.bench.mutants.session import run_pytest
from strop.bench.mutants.spans import Span, functions
from strop.bench.mutants.targets import ROOT


@dataclass(frozen=True)
class Traced:
    """One source file as the tests of one file execute it.

    Attributes:
        digest: of the source as it was.
        functions: first and last line of each function.
        lines: for each line the numbers of the tests that execute it.
    """

    digest: str
    functions: dict[str, Span]
    lines: dict[str, list[int]]


@dataclass(frozen=True)
class LineTrace:
    """What the tests of one file execute.

    Attributes:
        digest: of the tests and their helpers.
        tests: pytest's name and the CPU seconds of each test that passed.
    """

    digest: str
    tests: list[tuple[str, float]]
    sources: dict[str, Traced]


@dataclass(eq=False)
class LineRecorder:
    """A pytest plugin: names the test at work to the tracer, and notes what each took of a CPU."""

    tracer: coverage.Coverage
    seconds: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Record the lines of one test, its fixtures included."""
        self.tracer.switch_context(item.nodeid)
        start = _cpu_seconds()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = _cpu_seconds() - start
            self.tracer.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what is no proof: failures, and tests that are skipped."""
        if not report.passed:
            self.failed.add(report.nodeid)


def _cpu_seconds() -> float:
    """Of this process and of those that it waited for: what a busy machine does not change."""
    return sum(os.times()[:4])


def trace(tests: str, targets: Sequence[str], root: Path = ROOT) -> LineTrace:
    """Run one file of tests, without the slow ones, and record what it executes."""
    tracer = coverage.Coverage(
        data_file=None, config_file=False, include=[str(root / t) for t in targets]
    )
    recorder = LineRecorder(tracer)
    tracer.start()
    run_pytest([tests], [recorder], root)
    tracer.stop()
    passed = [(t, s) for t, s in recorder.seconds.items() if t not in recorder.failed]
    number = {name: i for i, (name, _) in enumerate(passed)}
    data = tracer.get_data()
    sources = {}
    for target in targets:
        by_line = data.contexts_by_lineno(str((root / target).resolve()))
        lines = {str(n): [number[c] for c in names if c in number] for n, names in by_line.items()}
        source = (root / target).read_text()
        kept = {n: found for n, found in lines.items() if found}
        sources[target] = Traced(digest(source), functions(ast.parse(source)), kept)
    return LineTrace(tests_digest(tests, root), passed, sources)


def trace_as_json(tests: str, targets: Sequence[str], root: Path = ROOT) -> str:
    """The same as text."""
    return json.dumps(asdict(trace(tests, targets, root)))


def read_trace(text: str) -> LineTrace:
    """What ``trace_as_json`` wrote."""
    values = json.loads(text)
    sources = {name: Traced(**source) for name, source in values["sources"].items()}
    return LineTrace(values["digest"], [(n, s) for n, s in values["tests"]], sources)


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tests_digest(tests: str, root: Path = ROOT) -> str:
    """Of a file of tests and of everything beside it that is no file of tests."""
    folder = (root / tests).parent
    helpers = sorted(p for p in folder.glob("*.py") if not p.name.startswith("test_"))
    return digest("".join(p.read_text() for p in (root / tests, *helpers)))
