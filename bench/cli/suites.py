"""``strop bench --suite NAME``."""

from __future__ import annotations

import os
from pathlib import Path

from strop.bench.cli.wanted import Wanted
from strop.bench.harness.listener import listening
from strop.bench.harness.peers import DEFAULT
from strop.bench.pages.page import page
from strop.bench.records.figures import RESULTS
from strop.bench.suites.order import Order
from strop.bench.suites.table import SUITES
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.writing import require_writable, write_whole


def run_suite(name: str, wanted: Wanted, results: Path | None) -> None:
    """Measure a suite, and write its record and its page.

    Args:
        name: of the suite.
        wanted: the rest of the command line.
        results: folder for the record; the checkout's own by default.

    Raises:
        UsageError: no such suite, or options that have no meaning for one.
        BudgetError: a part of it failed.
    """
    if name not in SUITES:
        raise UsageError(f"--suite: no suite '{name}'{did_you_mean(name, list(SUITES))}")
    if wanted.words or wanted.source or wanted.shapes or wanted.json or wanted.fail_if:
        raise UsageError("--suite has its own models, sizes and files; leave the other options out")
    if name == "build" and wanted.against is not None:
        raise UsageError("--suite build times builds, against torch.onnx: leave --against out")
    wanted.require_places()
    folder = results or _results_folder()
    require_writable(folder / f"{name}.json", "--results")
    order = Order(wanted.peers() or DEFAULT, wanted.plan, folder)
    with listening() as listener:
        sections = SUITES[name](order, listener)
    if wanted.html:
        write_whole(wanted.html, page(f"strop bench --suite {name}", sections))


def _results_folder() -> Path:
    """Where a checkout keeps its results; the working folder where strop is only installed."""
    checkout = (RESULTS.parents[1] / "pyproject.toml").is_file() and os.access(RESULTS, os.W_OK)
    return RESULTS if checkout else Path.cwd()
