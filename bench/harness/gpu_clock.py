"""How long work takes on a GPU, without what the host needs to start it."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

_RUNS, _WARM_UP = 40, 4
# More than the second-level cache of any GPU, so that every run reads its inputs from memory.
_FLUSH = 256 * 2**20


@torch.no_grad()
def gpu_milliseconds(run: Callable[[], object], cold: bool = True) -> float:
    """The median time of some runs, from a CUDA graph that is replayed.

    Args:
        run: starts work on the current stream and does not wait for it.
        cold: whether the cache is emptied before every run.
    """
    flush = torch.empty(_FLUSH if cold else 1, dtype=torch.int8, device="cuda")
    for _ in range(_WARM_UP):
        run()
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True, external=True) for _ in range(2))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        flush.zero_()
        begin.record()
        run()
        end.record()
    taken: list[float] = []
    for _ in range(_WARM_UP + _RUNS):
        graph.replay()
        torch.cuda.synchronize()
        taken.append(begin.elapsed_time(end))
    return statistics.median(taken[_WARM_UP:])
