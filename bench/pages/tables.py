"""A record, and a comparison of two, as tables for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strop.bench.records.compare import Change
from strop.bench.records.record import BenchCase, DuelRecord, EngineRow, Result, size_label
from strop.compiler.util.terminal import Console, Table

# Letters that a column of names keeps, however narrow the terminal.
NARROW = 14


@dataclass(frozen=True)
class TableRow:
    """One line of text cells; ``own`` marks strop's artifacts, ``style`` is rich's."""

    cells: Sequence[str]
    own: bool = False
    style: str = ""


@dataclass(frozen=True)
class TextTable:
    """A table as plain text; its first ``names`` columns are words, the rest numbers."""

    title: str
    heads: Sequence[str]
    rows: Sequence[TableRow]
    names: int = 1

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title)
        for i, head in enumerate(self.heads):
            word = i < self.names
            justify: Literal["left", "right"] = "left" if word else "right"
            longest = max((len(row.cells[i]) for row in self.rows), default=0)
            # Numbers stay whole; names fold where the terminal is narrow, but not to a few letters.
            table.add_column(
                head,
                overflow="fold",
                justify=justify,
                no_wrap=not word,
                min_width=min(longest, NARROW) if word else None,
            )
        for row in self.rows:
            style = row.style or ("bold" if row.own else "")
            table.add_row(*row.cells, style=style)
        return table

    def markdown(self) -> str:
        """For the README, without the title."""
        lines = [self.heads, ["---"] * len(self.heads), *(row.cells for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latency(record: DuelRecord) -> TextTable:
    """Milliseconds case by case, and how many times faster than the baseline each engine is."""
    faster = [f"× {record.baseline}"] if record.baseline else []
    of_texts = record.inputs == "prompts"
    rows = [
        TableRow(
            [
                case.label if i == 0 else "",
                name,
                _ms(result.milliseconds.median),
                f"{_ms(result.milliseconds.low)} – {_ms(result.milliseconds.high)}",
                *([f"{result.speedup.median:.2f}"] if result.speedup else []),
                *([_rate(case, result)] if of_texts else []),
            ],
            record.engine(name).subject,
        )
        for case in record.cases
        for i, (name, result) in enumerate(case.results.items())
    ]
    heads = ["case", "engine", "ms, median", "quartiles", *faster]
    if not of_texts:
        return TextTable("latency", heads, rows, 2)
    title = "past=0: to the first token; seq=1: each further token"
    return TextTable(title, [*heads, "tokens/s"], rows, 2)


def _rate(case: BenchCase, result: Result) -> str:
    """Tokens that go through the model in a second, those of the prompt or new ones."""
    tokens = case.sizes["batch"] * case.sizes["seq"]
    return f"{1000 * tokens / result.milliseconds.median:.0f}"


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def overview(record: DuelRecord) -> TextTable:
    """Speed, fidelity and size of every engine that ran, one line each."""
    alike = len({case.threads for case in record.cases}) == 1
    cases = [size_label(case.sizes) if alike else case.label for case in record.cases]
    rows = [
        TableRow(
            [
                e.name,
                *(_ms_and_factor(case.results[e.name]) for case in record.cases),
                _fidelity(record.cases, e.name)[2],
                _footprint(e)[0],
            ],
            e.subject,
        )
        for e in record.engines
        if e.outcome == "ran"
    ]
    return TextTable("at a glance", ["engine", *(f"ms, {c}" for c in cases), "cosine", "MB"], rows)


def _ms_and_factor(result: Result) -> str:
    faster = f" ({result.speedup.median:.2f}×)" if result.speedup else ""
    return f"{_ms(result.milliseconds.median)}{faster}"


def properties(record: DuelRecord) -> TextTable:
    """Fidelity, size, load time and memory by engine."""
    heads = (
        "engine",
        "max abs",
        "SQNR dB",
        "cosine",
        "argmax",
        "file MB",
        "load ms",
        "peak MB",
    )
    rows = [
        TableRow([e.name, *_fidelity(record.cases, e.name), *_footprint(e)], e.subject)
        for e in record.engines
        if e.outcome == "ran"
    ]
    return TextTable("worst over the cases; memory with runtime and interpreter", heads, rows)


def _fidelity(cases: Sequence[BenchCase], engine: str) -> tuple[str, str, str, str]:
    found = [f for c in cases if (f := c.results[engine].fidelity) is not None]
    if not found:
        return "-", "-", "-", "-"
    errors = [f.max_abs for f in found if f.max_abs is not None]
    ratios = [f.sqnr_db for f in found if f.sqnr_db is not None]
    cosines = [f.cosine for f in found if f.cosine is not None]
    return (
        f"{max(errors):.1e}" if len(errors) == len(found) else "not finite",
        f"{min(ratios):.1f}" if ratios else "-",
        f"{min(cosines):.5f}" if cosines else "-",
        f"{min(f.agreement for f in found):.1%}",
    )


def _footprint(row: EngineRow) -> tuple[str, str, str]:
    return (
        "-" if row.bytes is None else f"{row.bytes / 1e6:.1f}",
        f"{row.load_ms.median:.0f}" if row.load_ms else "-",
        f"{row.peak_memory_bytes.median / 1e6:.0f}" if row.peak_memory_bytes else "-",
    )


def absent(record: DuelRecord) -> list[str]:
    """Engines that did not run, one sentence each."""
    return [f"{e.name} {_HOW[e.outcome]}: {e.reason}" for e in record.engines if e.outcome != "ran"]


def disturbances(record: DuelRecord) -> list[str]:
    """In which cases the machine was disturbed, and whether those rounds count."""
    found = []
    for case in record.cases:
        calm = [ok for bout in case.calm for ok in bout]
        fate = "they count all the same" if case.all_count else "they do not count"
        if not all(calm):
            count = f"{calm.count(False)} of {len(calm)} rounds"
            found.append(f"{case.label}: the machine was disturbed in {count}; {fate}")
    return found


def print_record(record: DuelRecord, console: Console) -> None:
    """Both tables, who did not run, and what else to know."""
    for grid in (latency(record), properties(record)):
        console.print(grid.rich())
    for sentence in (*absent(record), *disturbances(record)):
        console.say(sentence)


_HOW = {"missing": "is missing", "failed": "failed"}


def changes(found: Sequence[Change]) -> TextTable:
    """Two records side by side."""
    heads = ("engine", "what", "before", "after", "times worse", "")
    styles = {"worse": "bold red", "better": "green", "same": "dim"}
    rows = [
        TableRow(
            [c.engine, c.what, c.before, c.after, f"{c.factor:.3f}", c.verdict],
            style=styles[c.verdict],
        )
        for c in found
    ]
    return TextTable("before and after", heads, rows, 2)
