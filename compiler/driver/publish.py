"""Lower, write, check and describe the programs of a build; all of them are published, or none."""

from __future__ import annotations

import gc
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from strop.compiler.artifact.folder import provenance_file
from strop.compiler.artifact.output import ARTIFACT
from strop.compiler.artifact.provenance import write_provenance
from strop.compiler.check.generated import Generated
from strop.compiler.driver.describe import Together, describe
from strop.compiler.driver.generation import Caches, check_generation
from strop.compiler.driver.job import Job
from strop.compiler.driver.part import Ready
from strop.compiler.driver.speed import FloatFiles, written
from strop.compiler.driver.stand_in import check_by_stand_in
from strop.compiler.driver.verdict import Checked, check_file
from strop.compiler.frontend.sharing import Shared, owners
from strop.compiler.frontend.texts import Texts
from strop.compiler.lower.lowering import Lowered, lowering_of
from strop.compiler.lower.shared import SharedWeights
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import OnnxTarget
from strop.compiler.util import interrupts
from strop.compiler.util.collector import collector_paused
from strop.compiler.util.files.staging import staged

InFloat = Mapping[str, FloatFiles | None]
"""By program, the files that a quantized one is timed against."""


def publish(
    job: Job, parts: Sequence[Ready], tensors: Mapping[str, Shared], texts: Texts | None
) -> None:
    """Write the artifact; the folder takes its place in one step, or not at all.

    Args:
        job: what was asked for.
        parts: its programs after all passes; their weights are let go of.
        tensors: those of the original modules that several programs share.
        texts: that the original made, where it generates.

    Raises:
        UnsupportedError: a program cannot be lowered.
        RuntimeRefusedError: the runtime does not take a file.
        BudgetError: a file is too far from its original.
        UsageError: the artifact cannot be written, or the user's own code failed.
    """
    lowered = {part.name: _lowered(part) for part in parts}
    copied = _copied(job, lowered.values())
    caches = _caches(job, lowered.values(), copied)
    why_copied = _why_copied(job, lowered.values(), copied)
    with (
        _written_in_float(parts) as in_float,
        staged(job.out, ARTIFACT, job.options.force, interrupts.settle) as folder,
    ):
        shared = SharedWeights()
        files = _written(job, parts, lowered, shared, folder)
        notes = [*job.told, *why_copied, *_apart(parts, shared, tensors)]
        checked = {part.name: _checked(folder, in_float, part) for part in parts}
        generated = _generated(folder, job, parts, texts, caches)
        together = Together(files, caches, notes, generated)
        describe(folder, job, together, parts, checked)


def _lowered(part: Ready) -> Lowered:
    with part.job.named(), part.job.stages.stage("lower"), collector_paused():
        lowering = lowering_of(part.job.target)
        return lowering.lower(part.optimized.program, part.job.target, part.job.options.choices)


def _copied(job: Job, lowered: Collection[Lowered]) -> list[str]:
    """The caches of a decoder that have no buffer that calls share."""
    caches = job.generation.caches if job.generation is not None else {}
    free = frozenset[str]().union(*(one.shared_caches for one in lowered))
    return [name for name in caches if name not in free]


def _caches(job: Job, lowered: Collection[Lowered], copied: Sequence[str]) -> Caches:
    """How the files take caches: whether every one may be a buffer that is output, too."""
    prefill = "" if job.several else "".join(one.prefill for one in lowered)
    return Caches(bool(job.generation and job.generation.caches) and not copied, prefill)


def _why_copied(job: Job, lowered: Collection[Lowered], copied: Sequence[str]) -> list[str]:
    """A note that says why a runtime copies caches that it could continue in place, if it does."""
    if not copied or not isinstance(job.target, OnnxTarget):
        return []
    found = ChainMap(*(dict(one.copied_caches) for one in lowered))
    unread = "no attention continues them ('strop debug why-not cached-attention' says why)"
    reasons = dict.fromkeys(found.get(name, unread) for name in copied)
    return [f"each new token copies {len(copied)} of the caches: {'; '.join(reasons)}"]


@contextmanager
def _written_in_float(parts: Sequence[Ready]) -> Iterator[InFloat]:
    """What quantized programs are timed against, where this machine can time them."""
    with ExitStack() as stack:
        found: dict[str, FloatFiles | None] = {}
        for part in parts:
            # Times of a stand-in would say nothing of the target.
            timed = runtime_of(part.job.target).stand_in(part.job.target) is None
            program = part.optimized.in_float if timed else None
            with part.job.named():
                found[part.name] = stack.enter_context(written(program, part.job))
        yield found


def _written(
    job: Job,
    parts: Sequence[Ready],
    lowered: dict[str, Lowered],
    shared: SharedWeights,
    folder: Path,
) -> list[str]:
    """Write all programs and what the user adds; the names of the files of the target."""
    files: dict[str, None] = {}
    with job.stages.stage("write"):
        for part in parts:
            one = lowered.pop(part.name)
            if job.several:
                files |= dict.fromkeys(one.write(folder, part.name, shared))
            else:
                files |= dict.fromkeys(one.write(folder))
            write_provenance(one.provenance(), folder / provenance_file(part.name))
            del one
            if runtime_of(job.target).stand_in(job.target) is None:
                # The weights are in the file: the check has the memory for itself.
                part.optimized.program.weights.clear()
        job.companions.copy_to(folder)
    gc.collect()
    return list(files)


def _apart(
    parts: Sequence[Ready], shared: SharedWeights, tensors: Mapping[str, Shared]
) -> list[str]:
    """A note where weights that programs share are stored for each of them."""
    known = {part.name: owners(part.optimized.program, tensors[part.name]) for part in parts}
    apart = shared.bytes_apart(known)
    if not apart:
        return []
    return [
        f"{apart:,} bytes of the weights that programs share are stored more than once: the passes "
        "gave them other values or another form in each program"
    ]


def _checked(folder: Path, in_float: InFloat, part: Ready) -> Checked:
    """Compare the file of a program with its original."""
    stand_in = runtime_of(part.job.target).stand_in(part.job.target)
    with part.job.named():
        if stand_in is not None:
            return check_by_stand_in(stand_in, folder, part)
        return check_file(folder, in_float[part.name], part)


def _generated(
    folder: Path, job: Job, parts: Sequence[Ready], texts: Texts | None, caches: Caches
) -> Generated | None:
    """Compare how the files generate with how the original does; None where they do not."""
    if texts is None:
        return None
    stand_in = runtime_of(job.target).stand_in(job.target)
    if stand_in is not None and not isinstance(job.target, OnnxTarget):
        job.say(f"{stand_in.why}: the artifact was not made to generate")
        return None
    return check_generation(folder, job, parts, texts, caches)
