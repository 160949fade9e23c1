"""The record of torch's operator samples: outcomes by dtype, and what is stated of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.bench.records.figures import Figure, save
from strop.bench.records.machine import environment
from strop.bench.sweeps.operators.tables import by_reason

if TYPE_CHECKING:
    from strop.bench.sweeps.operators.outcomes import SampleOutcome

NAME = "operators"
# The required share of float32 samples.
LEAST_BUILT = 0.85


def figures(dtype: str, outcomes: Mapping[str, int]) -> list[Figure]:
    """What is stated of one dtype, from how many samples ended in which way."""
    share = outcomes.get("ok", 0) / max(1, sum(outcomes.values()))
    bound = LEAST_BUILT if dtype == "float32" else None
    return [
        Figure(f"{dtype} samples built and right, share of all", share, at_least=bound),
        Figure(f"{dtype} samples with wrong numbers", outcomes.get("wrong", 0), at_most=0),
        Figure(f"{dtype} samples that end in a traceback", outcomes.get("traceback", 0), at_most=0),
    ]


def summary(found: Mapping[str, SampleOutcome]) -> dict[str, Any]:
    """What the record says of one dtype, from the outcome of each sample."""
    return {
        "environment": environment(),
        "samples": len(found),
        "outcomes": dict(Counter(o.kind for o in found.values())),
        "reasons": [
            {"kind": kind, "reason": reason, "samples": labels}
            for kind, reason, labels in by_reason(found)
        ],
    }


def put_on_record(measured: Mapping[str, Any], results: Path) -> list[Figure]:
    """Write the summaries of some dtypes, beside what is on record of others.

    Returns:
        the figures of all of them.
    """
    path = results / f"{NAME}.json"
    recorded = json.loads(path.read_text())["measured"] if path.exists() else {}
    every = {**recorded, **measured}
    stated = [f for name, part in every.items() for f in figures(name, part["outcomes"])]
    latest = list(measured.values())[-1]
    save(NAME, latest["environment"], stated, every, results)
    return stated
