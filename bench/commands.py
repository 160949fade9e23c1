"""What ``strop bench`` does: everything is looked at first, then measured, written and judged."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.bench.harness.duel import duel
from strop.bench.harness.listener import listening
from strop.bench.harness.options import size_combinations
from strop.bench.harness.peers import check_names
from strop.bench.harness.setup import DuelSetup
from strop.bench.pages import tables
from strop.bench.pages.page import duel_section, page, require_plotting
from strop.bench.records.compare import compare, differences, of_artifacts
from strop.bench.records.conditions import Condition, parse_condition
from strop.bench.records.figures import RESULTS
from strop.bench.records.reading import read_record
from strop.bench.records.record import DuelRecord, Plan
from strop.compiler.artifact.folder import Artifact, read_intact
from strop.compiler.artifact.history import recall_source
from strop.compiler.debug.shapes import WORD
from strop.compiler.util.errors import BudgetError, RuntimeRefusedError, UsageError, did_you_mean
from strop.compiler.util.files.writing import require_writable, write_whole
from strop.compiler.util.terminal import Console

SUBJECT = "strop"
DEFAULT = ("eager", "ort")
console = Console()


@dataclass(frozen=True)
class Wanted:
    """The command line as it was written, but for the plan.

    Attributes:
        words: the artifact, and sizes that the shell parted from ``--shapes``.
    """

    words: Sequence[str]
    source: str
    against: str | None
    shapes: Sequence[str]
    plan: Plan
    json: Path | None
    html: Path | None
    fail_if: Sequence[str]

    def require_places(self) -> None:
        """Refuse files that could not be written, or not be made.

        Raises:
            UsageError: no write access, or no package to plot with.
        """
        require_writable(self.json, "--json")
        require_writable(self.html, "--html")
        if self.html:
            require_plotting()

    def peers(self) -> list[str] | None:
        """The peers of ``--against``, each once; None if it was not given.

        Raises:
            UsageError: no such peer.
        """
        if self.against is None:
            return None
        names = list(dict.fromkeys(n.strip() for n in self.against.split(",") if n.strip()))
        check_names(names)
        return names


def schema() -> str:
    """The JSON schema of a record."""
    return json.dumps(DuelRecord.model_json_schema(), indent=2) + "\n"


def run_duel(wanted: Wanted) -> None:
    """``strop bench OUT``.

    Raises:
        UsageError: something about the command, found before anything is measured.
        RuntimeRefusedError: the artifact itself did not run.
        BudgetError: a condition of ``--fail-if`` holds.
    """
    wanted.require_places()
    setup = _setup(wanted)
    names = [*setup.against, SUBJECT]
    conditions = [parse_condition(c, names, setup.against) for c in wanted.fail_if]
    if setup.source is None:
        console.print(
            "The original model is not known: the artifact is timed alone, on made-up inputs. "
            "--source FILE.py:make compares it with its original."
        )
    with listening() as listener:
        record = duel(setup, listener)
    tables.print_record(record, console)
    if wanted.json:
        write_whole(wanted.json, record.model_dump_json(indent=1) + "\n")
    if wanted.html:
        title = f"strop bench {next(iter(setup.artifacts.values())).path.name}"
        write_whole(wanted.html, page(title, [duel_section(record, "Duel")]))
    _judge(record, conditions, setup.against)


def _setup(wanted: Wanted) -> DuelSetup:
    """What to measure, with the artifact read and all names and sizes checked."""
    peers = wanted.peers()
    # `--shapes batch=1 seq=16` comes as an option with one value, and a word.
    parted = [w for w in wanted.words if wanted.shapes and WORD.fullmatch(w)]
    artifact = _artifact([w for w in wanted.words if w not in parted])
    sizes = size_combinations([*wanted.shapes, *parted], artifact.manifest["contract"]["dims"])
    source = wanted.source or recall_source(artifact.path)
    if source is None and peers:
        raise UsageError(
            f"{', '.join(peers)} run the original model, and {artifact.path} was not built from a "
            "source on this machine: give --source FILE.py:make"
        )
    against = (DEFAULT if peers is None else peers) if source else ()
    return DuelSetup({SUBJECT: artifact}, source, against, sizes, wanted.plan)


def _artifact(folders: Sequence[str]) -> Artifact:
    if len(folders) != 1:
        given = f", not {', '.join(folders)}" if folders else ""
        raise UsageError(f"say which artifact to measure, one folder{given}: strop bench OUT")
    return read_intact(folders[0])


def _judge(record: DuelRecord, conditions: Sequence[Condition], against: Sequence[str]) -> None:
    row = record.engine(SUBJECT)
    if row.outcome != "ran":
        raise RuntimeRefusedError(f"the artifact {row.reason}")
    first = against[0] if against else None
    complaints = [found for c in conditions if (found := c.check(record, SUBJECT, first))]
    if complaints:
        raise BudgetError("; ".join(complaints))


def run_suite(name: str, wanted: Wanted, results: Path | None) -> None:
    """``strop bench --suite NAME``.

    Raises:
        UsageError: no such suite, or options that have no meaning for one.
        BudgetError: a part of it failed.
    """
    from strop.bench.suites.catalog import SUITES, Order

    if name not in SUITES:
        raise UsageError(f"--suite: no suite '{name}'{did_you_mean(name, list(SUITES))}")
    if wanted.words or wanted.source or wanted.shapes or wanted.json or wanted.fail_if:
        raise UsageError("--suite has its own models, sizes and files; leave the other options out")
    if name == "build" and wanted.against is not None:
        raise UsageError("--suite build times builds, against torch.onnx: leave --against out")
    wanted.require_places()
    folder = results or _results_folder()
    require_writable(folder / f"{name}.json", "--results")
    order = Order(wanted.peers() or DEFAULT, wanted.plan, folder)
    with listening() as listener:
        sections = SUITES[name](order, listener)
    if wanted.html:
        write_whole(wanted.html, page(f"strop bench --suite {name}", sections))


def _results_folder() -> Path:
    """Where a checkout keeps its results; the working folder where strop is only installed."""
    checkout = (RESULTS.parents[1] / "pyproject.toml").is_file() and os.access(RESULTS, os.W_OK)
    return RESULTS if checkout else Path.cwd()


def run_compare(before: Path, after: Path) -> None:
    """``strop bench compare``.

    Raises:
        UsageError: a file is no record, or the two have nothing in common.
        BudgetError: something got worse beyond the noise.
    """
    old, new = read_record(before), read_record(after)
    found = compare(old, new)
    if not found:
        raise UsageError(f"{before} and {after} have no engine and case in common")
    for sentence in differences(old, new):
        console.print(f"not the same: {sentence}")
    own = of_artifacts(found, old)
    shown = [c for c in found if c in own or c.verdict != "same"]
    console.print(tables.changes(shown).rich())
    worse = [c for c in own if c.verdict == "worse"]
    if worse:
        said = "; ".join(f"{c.engine}, {c.what}: {c.before} to {c.after}" for c in worse)
        raise BudgetError(f"worse than before: {said}")
    console.print("nothing got worse beyond the noise")
