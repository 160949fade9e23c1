"""``python -m strop.bench``: measure every suite, and write the records into ``bench/results``."""

from __future__ import annotations

import sys

from strop.bench.cli.suites import run_suite
from strop.bench.cli.wanted import Wanted, plan_of
from strop.bench.records.figures import console, show_results
from strop.bench.suites.table import SUITES
from strop.compiler.util.errors import StropError


def run_all() -> int:
    """Measure, print every figure on record, and say which suites failed; the exit status."""
    failed = 0
    for name in SUITES:
        console.rule(name)
        try:
            run_suite(name, Wanted(plan_of(threads="")), None)
        except StropError as error:
            failed = error.exit_code
            console.print(f"suite {name}: {error}", style="red")
    console.rule("all figures on record")
    show_results()
    return failed


if __name__ == "__main__":  # the engines' processes import this file too
    sys.exit(run_all())
