"""Limits that the system holds a process to: memory, processor time, core files."""

from __future__ import annotations

import resource
from pathlib import Path


def lower_limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower one of this process's limits; one that is lower already stays.

    Args:
        kind: a ``resource.RLIMIT_...``.
        soft: the limit in force.
        hard: what it may raise that to; the same by default.
    """
    hard = soft if hard is None else hard
    allowed = resource.getrlimit(kind)[1]
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(kind, (soft, hard))


def available_memory() -> int | None:
    """Bytes that processes may still take without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None
