"""The build suite: time, memory and reproducibility of builds, each by its own command."""

from __future__ import annotations

import json

from strop.bench.harness.listener import Listener
from strop.bench.pages.page import Section, build_section
from strop.bench.processes.launch import run_python
from strop.bench.records.figures import console, figures_of
from strop.bench.suites.order import Order
from strop.compiler.util.errors import BudgetError

LAYERS = "build_scaling"
# Modules of `strop.bench.measures`, and records of the same names.
COMMANDS = (
    "reproducible",
    LAYERS,
    "peak_memory",
    "check_costs",
    "instruments",
    "report",
    "repeatability",
)


def run(order: Order, listener: Listener) -> list[Section]:
    """Run every command.

    Raises:
        BudgetError: some of them failed.
    """
    sections: list[Section] = []
    failed: list[str] = []
    for name in COMMANDS:
        listener.stage(name)
        module = f"strop.bench.measures.{name}"
        done = run_python("-m", module, "--results", str(order.results))
        console.print(done.stdout)
        if done.returncode:
            failed.append(f"{module} failed:\n{done.stderr.strip()[-2000:]}")
        else:
            sections.append(_section(name, order))
    if failed:
        raise BudgetError("\n".join(failed))
    return sections


def _section(name: str, order: Order) -> Section:
    record = json.loads((order.results / f"{name}.json").read_text())
    runs = record["measured"]["runs"] if name == LAYERS else {}
    return build_section(name, record["environment"], figures_of(record), runs)
