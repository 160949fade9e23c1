"""The command line as it was written, and the plan of measurement that it asks for."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.bench.cli.values import parse_threads
from strop.bench.harness.peers import PEERS, check_names
from strop.bench.pages.page import require_plotting
from strop.bench.records.record import Plan
from strop.compiler.util.files.writing import require_writable


@dataclass(frozen=True)
class Wanted:
    """The command line; everything but the plan as it was written.

    Attributes:
        words: the artifact, and sizes that the shell separated from ``--shapes``.
    """

    plan: Plan
    words: Sequence[str] = ()
    source: str = ""
    against: str | None = None
    shapes: Sequence[str] = ()
    json: Path | None = None
    html: Path | None = None
    fail_if: Sequence[str] = ()
    program: str = ""

    def require_places(self) -> None:
        """Refuse files that could not be written, or not be made.

        Raises:
            UsageError: no write access, or no package to plot with.
        """
        require_writable(self.json, "--json")
        require_writable(self.html, "--html")
        if self.html:
            require_plotting()

    def peers(self, known: Collection[str] = PEERS) -> list[str] | None:
        """The peers of ``--against`` among the known, each once; None if it was not given.

        Raises:
            UsageError: no such peer.
        """
        if self.against is None:
            return None
        names = list(dict.fromkeys(n.strip() for n in self.against.split(",") if n.strip()))
        check_names(names, known)
        return names


def plan_of(threads: str, **given: float | None) -> Plan:
    """The plan with what was given in place of its defaults; on all cores by default.

    Raises:
        UsageError: ``threads`` is no list of numbers.
    """
    numbers = parse_threads(threads) if threads else [os.cpu_count() or 1]
    chosen = {name: value for name, value in given.items() if value is not None}
    return Plan.model_validate({"threads": numbers, **chosen})
