"""Which tests to run for a line: traces of all files of tests, kept in ``.mutants``.

A file of tests is traced anew when it, or a helper beside it, changes. Where a source changed
since, its lines are looked up by function, which serves as long as the function is still there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from strop.bench.mutants.spans import Span, function_at, functions, statement_span
from strop.bench.mutants.targets import ROOT
from strop.bench.mutants.trace import (
    LineTrace,
    Traced,
    digest,
    read_trace,
    tests_digest,
    trace_as_json,
)
from strop.bench.processes.forks import ForkedCall, forked
from strop.compiler.util.terminal import Console

LIMIT = 900.0  # seconds for one file of tests


@dataclass(frozen=True)
class Index:
    """Traces of the files of tests under ``root``."""

    traces: Sequence[LineTrace]
    root: Path = ROOT

    def tests_for(self, file: str, line: int) -> list[tuple[str, float]]:
        """Names and seconds of the tests that execute a line's statement, the fastest first.

        A statement that runs on import only (a decorator, a table) belongs to its function, or
        to the whole file: the test that happened to import the file first needs it no more than
        others do.
        """
        source = (self.root / file).read_text()
        tree = ast.parse(source)
        inside = function_at(tree, line)
        spans = [statement_span(tree, line)]
        whole_file = (1, source.count("\n") + 1)
        if inside in _called_on_import(tree):
            spans = [whole_file]
        elif _runs_on_import(tree, line):
            spans = [functions(tree)[inside], whole_file] if inside else [whole_file]
        for span in spans:
            if found := self._executing(file, digest(source), span, inside):
                return sorted(found.items(), key=lambda test: test[1])
        return []

    def _executing(
        self, file: str, wanted: str, span: Span, function: str | None
    ) -> dict[str, float]:
        """Tests that execute a span, or that executed its function when the source was another."""
        found: dict[str, float] = {}
        for one in self.traces:
            if traced := one.sources.get(file):
                first, last = span if traced.digest == wanted else _then(traced, function)
                numbers = {n for i in range(first, last + 1) for n in traced.lines.get(str(i), ())}
                found |= dict(one.tests[n] for n in numbers)
        return found


def _then(traced: Traced, function: str | None) -> Span:
    """Where a function stood when it was traced; the whole file if there was none such."""
    return traced.functions.get(function or "", (1, max(map(int, traced.lines), default=1)))


def _runs_on_import(tree: ast.Module, line: int) -> bool:
    """Whether a line is executed by the import of its file: it is in no function's body."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            body = node.body if isinstance(node.body, list) else [node.body]
            if body[0].lineno <= line <= (node.end_lineno or node.lineno):
                return False
    return True


def _called_on_import(tree: ast.Module) -> set[str]:
    """Names of the functions that are called outside of any function's body."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += [*node.decorator_list, node.args]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def read_index(
    tests: Iterable[str], targets: Sequence[str], kept: Path, at_once: int, root: Path = ROOT
) -> Index:
    """The traces of these files of tests: those that are kept, the others made now.

    A file of tests that cannot be traced is named and left out: its mutants count as survivors
    where no other test notices them.
    """
    kept.mkdir(exist_ok=True)
    places = {name: kept / f"{Path(name).stem}.json" for name in tests}
    missing = [n for n, place in places.items() if not _is_fresh(place, tests_digest(n, root))]
    # The copies answer with text: their classes are not the ones of this process any more.
    calls = [ForkedCall(partial(trace_as_json, n, targets, root), LIMIT, n) for n in missing]
    for ended in forked(calls, at_once):
        if ended.how == "returned":
            places[ended.about].write_text(ended.value)
        else:
            del places[ended.about]
            said = f"{ended.about} was not traced: {ended.how} {ended.value or ''}"
            Console(stderr=True).say(said)
    return Index([read_trace(place.read_text()) for place in places.values()], root)


def _is_fresh(place: Path, wanted: str) -> bool:
    return place.is_file() and read_trace(place.read_text()).digest == wanted
