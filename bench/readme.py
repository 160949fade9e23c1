"""``python -m strop.bench.readme``: write the records into README.md and RESULTS.md.

The README gets one table of the encoders; the page of results all figures, grouped by the machine
they were measured on, all duels in full, the applications by stage, the zoo, and the outcomes of
operators.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strop.bench.applications.stages import recorded
from strop.bench.pages.markers import README, RESULTS_PAGE, put
from strop.bench.pages.tables import (
    TableRow,
    TextTable,
    absent,
    disturbances,
    latency,
    overview,
    properties,
)
from strop.bench.records.figures import figures_of, results
from strop.bench.records.machine import machine
from strop.bench.records.record import DuelRecord
from strop.bench.sweeps.operators.tables import outcomes, reasons
from strop.bench.sweeps.zoo.rows import recorded_rows, table

APPLICATIONS = ("question_answering", "translation", "summarization")
Saved = Mapping[str, Any]
"""A record of a benchmark, as it was saved."""


def figures_tables(found: Sequence[Saved]) -> str:
    """All figures as Markdown tables, one for each machine; a missed bound says so."""
    by_machine: dict[str, list[Saved]] = {}
    for saved in found:
        by_machine.setdefault(machine(saved["environment"]), []).append(saved)
    return "\n\n".join(
        f"On {place}:\n\n{_figures_table(group)}" for place, group in by_machine.items()
    )


def _figures_table(group: Sequence[Saved]) -> str:
    rows = [
        TableRow([saved["name"], f.what, f"{f.value:.4g}", f.wanted, "" if f.hit else "**missed**"])
        for saved in group
        for f in figures_of(saved)
    ]
    return TextTable("", ("record", "figure", "measured", "wanted", ""), rows).markdown()


def duels(found: Sequence[Saved]) -> Iterator[tuple[str, DuelRecord]]:
    """The duels on record, each with the name of its model."""
    for saved in found:
        if saved["name"] == "encoders":
            yield "MiniLM-L6", _record(saved["measured"]["record"])
        elif saved["name"] in ("vision", "decoders"):
            for name, values in saved["measured"].items():
                yield name, _record(values)


def _record(values: Saved) -> DuelRecord:
    # As JSON, in which an object stands for a dataclass.
    return DuelRecord.model_validate_json(json.dumps(values))


def duel_tables(found: Sequence[Saved]) -> str:
    """Every duel in full."""
    parts = []
    for name, record in duels(found):
        parts.append(f"### {name}\n\nOn {machine(record.environment)}.")
        parts += [grid.markdown() for grid in (latency(record), properties(record))]
        if notes := [*absent(record), *disturbances(record)]:
            parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def encoders_table(found: Sequence[Saved]) -> str:
    """The encoders in one table."""
    record = dict(duels(found))["MiniLM-L6"]
    return f"On {machine(record.environment)}:\n\n{overview(record).markdown()}"


def operator_tables(found: Sequence[Saved]) -> str:
    """The outcomes of torch's operator samples, by dtype and by reason."""
    measured = next(saved["measured"] for saved in found if saved["name"] == "operators")
    return "\n\n".join(grid(measured).markdown() for grid in (outcomes, reasons))


def application_tables(found: Sequence[Saved]) -> str:
    """The stages of each application, in quality and in speed."""
    records = {saved["name"]: saved for saved in found}
    parts = []
    for name in (name for name in APPLICATIONS if name in records):
        saved, grid = records[name], recorded(records[name])
        place = f"On {machine(saved['environment'])}:"
        parts += [f"### {name.replace('_', ' ')}", f"{grid.title}. {place}", grid.markdown()]
    return "\n\n".join(parts)


def main() -> None:
    """Replace the generated parts by what is on record."""
    found = results()
    put(README, "glance", encoders_table(found))
    put(RESULTS_PAGE, "figures", figures_tables(found))
    put(RESULTS_PAGE, "duels", duel_tables(found))
    put(RESULTS_PAGE, "applications", application_tables(found))
    put(RESULTS_PAGE, "zoo", table(recorded_rows()).markdown())
    put(RESULTS_PAGE, "operators", operator_tables(found))


if __name__ == "__main__":
    main()
