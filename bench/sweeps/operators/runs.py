"""Operators' samples, measured in separate processes: memory is bounded, crashes are reported."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import onnxruntime as ort
import torch

from strop.bench.processes.spawned import EngineError, isolated
from strop.bench.sweeps.operators.outcomes import SampleOutcome, outcome
from strop.bench.sweeps.operators.samples import operators, samples

# Operators that one process measures: torch, ONNX and their caches grow with every build.
TOGETHER = 40
# Seconds for one operator; few take more than three.
LONGEST = 120.0
FATAL = 4


def measure(dtype: str, only: Sequence[str], jobs: int) -> dict[str, SampleOutcome]:
    """The outcome of every sample of every operator that takes a dtype, by the sample's label.

    Args:
        dtype: torch's name of it.
        only: names of operators; all where there is none.
        jobs: how many processes measure at the same time.
    """
    entries = operators(getattr(torch, dtype))
    numbers = [i for i, entry in enumerate(entries) if not only or entry.name in only]
    parts = [numbers[i : i + TOGETHER] for i in range(0, len(numbers), TOGETHER)]
    with ThreadPoolExecutor(jobs) as threads:
        measured = threads.map(partial(_measured, dtype), parts)
        return {label: found for part in measured for label, found in part.items()}


def _measured(dtype: str, numbers: Sequence[int]) -> dict[str, SampleOutcome]:
    """Some operators in one process; each in one of its own where that process ends."""
    try:
        timeout = LONGEST * len(numbers)
        found: dict[str, SampleOutcome] = isolated(of_operators, dtype, numbers, timeout=timeout)
        return found
    except EngineError as error:
        if len(numbers) == 1:
            name = operators(getattr(torch, dtype))[numbers[0]].name
            return {name: SampleOutcome("traceback", "the process ends", str(error))}
    return {label: o for n in numbers for label, o in _measured(dtype, [n]).items()}


def of_operators(dtype: str, numbers: Sequence[int]) -> dict[str, SampleOutcome]:
    """The outcomes of some operators, given by their places in the list of those for a dtype."""
    _quiet()
    of = getattr(torch, dtype)
    entries = operators(of)
    return {s.label: outcome(s) for n in numbers for s in samples(entries[n], of)}


def _quiet() -> None:
    """One thread, no logs; and collections that leave torch's tables of operators alone."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(FATAL)
    torch.set_num_threads(1)
    operators(torch.float32)
    gc.collect()
    gc.freeze()
