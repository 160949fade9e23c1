"""``python -m strop.bench``: every suite, one after the other, on the record of this checkout."""

from __future__ import annotations

import os

from strop.bench.commands import Wanted, run_suite
from strop.bench.figures import console, main
from strop.bench.record import Plan
from strop.bench.suites import SUITES

if __name__ == "__main__":  # the engines' processes import this file too
    for name in SUITES:
        console.rule(name)
        plan = Plan(threads=[os.cpu_count() or 1], bouts=3, rounds=7)
        run_suite(name, Wanted([], "", None, [], plan, None, None, []), None)
    console.rule("all figures on record")
    main()
