"""Write manifest, report and build record beside the files of the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strop.compiler.artifact.folder import BUILD, MANIFEST, REPORT, write_json
from strop.compiler.artifact.manifest import Record, build_record, manifest
from strop.compiler.artifact.report.page import render
from strop.compiler.driver.job import Job
from strop.compiler.driver.optimize import Optimized
from strop.compiler.driver.verdict import Checked
from strop.compiler.frontend.prepare import Captured
from strop.compiler.ir.batch_invariance import spanning_operators


def describe(
    folder: Path,
    files: Sequence[str],
    job: Job,
    captured: Captured,
    optimized: Optimized,
    checked: Checked,
) -> None:
    """Describe a build that was checked.

    Args:
        folder: where the files of the target lie; provenance and companions lie there too.
        files: the names of those of the target.
        job: what was asked for.
        captured: the original.
        optimized: what the passes made.
        checked: what the files gave.
    """
    both = {"original": captured.metrics, "artifact": checked.metrics}
    record = Record(
        recipe=job.recipe,
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
        assets=tuple(job.companions.files),
        labels=job.companions.labels,
    )
    described = manifest(record, folder, files)
    write_json(folder / MANIFEST, described)
    times = {"original": captured.milliseconds, **checked.milliseconds}
    built = build_record(job.stages.seconds, optimized.records, times, job.notes)
    with job.stages.stage("report"):
        page = render(described, built, *optimized.graphs)
        (folder / REPORT).write_text(page, encoding="utf-8")
    # Last of all: the time of the report has joined the others.
    write_json(folder / BUILD, built)
