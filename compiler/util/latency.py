"""A rough measurement of one run; `strop bench` measures it with care."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

# Seconds to spend, and the most runs in them.
BUDGET, RUNS = 0.25, 9


def quick_look(run: Callable[[], object]) -> float:
    """Median milliseconds of a few runs after one that does not count."""
    run()
    times: list[float] = []
    while len(times) < RUNS and sum(times) < BUDGET:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
