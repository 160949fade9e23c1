"""``python -m strop.bench``: every benchmark that holds strop to a figure, one after the other."""

from __future__ import annotations

import subprocess
import sys

from strop.bench.figures import console, main

BENCHMARKS = ("reproducible", "duel", "build_scaling", "peak_memory")

for name in BENCHMARKS:
    console.rule(name)
    subprocess.run([sys.executable, "-m", f"strop.bench.{name}"], check=True)
console.rule("all figures on record")
main()
