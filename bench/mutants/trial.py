"""One mutant against the tests that execute its line."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from strop.bench.mutants.population import Mutant
from strop.bench.mutants.session import run_pytest
from strop.bench.mutants.targets import ROOT, module_name


class Injector(importlib.abc.MetaPathFinder):
    """Imports the mutant where its module is asked for; the file on disk stays as it is."""

    def __init__(self, mutant: Mutant, root: Path) -> None:
        self._name = module_name(mutant.file)
        self._path = str(root / mutant.file)
        self._source = mutant.source

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The mutant's own loader for its module, nothing for others."""
        if name != self._name:
            return None
        loader = _Loader(name, self._path, self._source)
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        # Not through the cache of compiled files, which knows the original only.
        return compile(self._source, self.path, "exec", dont_inherit=True)


@dataclass(eq=False)
class Chosen:
    """A pytest plugin: keeps some tests, in the order given, and notes what fails first."""

    names: Sequence[str]
    killer: str = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep and order."""
        place = {name: i for i, name in enumerate(self.names)}
        items[:] = sorted(
            (item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid]
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A mutant that cannot be imported is noticed by every test."""
        if report.failed:
            self.killer = self.killer or report.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed:
            self.killer = self.killer or report.nodeid


def try_mutant(mutant: Mutant, tests: Sequence[str], root: Path = ROOT) -> str:
    """The test that notices the mutant; empty if none does.

    Raises:
        RuntimeError: the tests were not found, or pytest did not end well.
    """
    sys.meta_path.insert(0, Injector(mutant, root))
    chosen = Chosen(tests)
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    status = run_pytest(["-x", *files], [chosen], root)
    # conftest.py itself may import the mutant: then pytest cannot even be started
    if status == pytest.ExitCode.USAGE_ERROR:
        return "conftest.py"
    if not chosen.killer and status != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest ended with status {status} over {len(tests)} tests")
    return chosen.killer
