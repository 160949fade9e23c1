"""Write manifest, report and build record beside the files of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from strop.compiler.artifact.folder import BUILD, MANIFEST, REPORT, write_json
from strop.compiler.artifact.generation import generation_values
from strop.compiler.artifact.manifest import ProgramRecord, Record, build_record, manifest
from strop.compiler.artifact.report.page import render
from strop.compiler.check.generated import Generated
from strop.compiler.driver.generation import Caches, write_settings
from strop.compiler.driver.job import Job
from strop.compiler.driver.part import Ready
from strop.compiler.driver.verdict import Checked
from strop.compiler.ir.batch_invariance import spanning_operators


@dataclass(frozen=True)
class Together:
    """What was written for all programs together.

    Attributes:
        files: the names of the files of the target.
        caches: how the files of a decoder take them.
        notes: what the user should know of them, in sentences.
        generated: how they generate together, where they do.
    """

    files: Sequence[str]
    caches: Caches
    notes: Sequence[str]
    generated: Generated | None


def describe(
    folder: Path,
    job: Job,
    together: Together,
    parts: Sequence[Ready],
    checked: Mapping[str, Checked],
) -> None:
    """Describe a build that was checked.

    Args:
        folder: where the files of the target lie; provenance and companions lie there too.
        job: what was asked for.
        together: what was written.
        parts: the programs.
        checked: what the file of each of them gave, by name.
    """
    generation, beside = None, []
    if job.generation is not None:
        generation = generation_values(job.generation, **asdict(together.caches))
        beside = write_settings(folder, job, parts, together.caches)
    record = Record(
        recipe=job.recipe,
        programs={part.name: _record(part, checked[part.name]) for part in parts},
        assets=tuple(job.companions.files),
        labels=job.companions.labels,
        generation=generation,
        generated=together.generated.record() if together.generated else None,
        beside=beside,
        notes=together.notes,
    )
    described = manifest(record, folder, together.files)
    write_json(folder / MANIFEST, described)
    built = build_record(job.stages.seconds, record.programs, job.notes)
    with job.stages.stage("report"):
        page = render(described, built, {part.name: part.optimized.graphs for part in parts})
        (folder / REPORT).write_text(page, encoding="utf-8")
    # Last of all: the time of the report has joined the others.
    write_json(folder / BUILD, built)


def _record(part: Ready, checked: Checked) -> ProgramRecord:
    captured, optimized = part.captured, part.optimized
    both = {"original": captured.metrics, "artifact": checked.metrics}
    return ProgramRecord(
        contract=optimized.program.contract,
        steps=optimized.records,
        checks=checked.results,
        sizes=captured.coverage.record(),
        metrics=both if checked.metrics else {},
        spanning=spanning_operators(optimized.program),
        notes=[
            *captured.notes,
            *(note for step in optimized.records for note in step.notes),
            *checked.notes,
        ],
        milliseconds={"original": captured.milliseconds, **checked.milliseconds},
    )
