"""``strop bench OUT``: everything is checked first, then measured, written and judged."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from strop.bench.cli.values import size_combinations
from strop.bench.cli.wanted import Wanted
from strop.bench.harness.duel import duel
from strop.bench.harness.listener import listening
from strop.bench.harness.peers import DEFAULT, PEERS
from strop.bench.harness.setup import DuelSetup
from strop.bench.harness.subject import Sizes
from strop.bench.harness.text_peers import TEXT_DEFAULT, TEXT_PEERS, names_checkpoint
from strop.bench.harness.texts import makes_texts, sizes_of_prompts
from strop.bench.pages import tables
from strop.bench.pages.page import duel_section, page
from strop.bench.records.conditions import Condition, parse_condition
from strop.bench.records.record import DuelRecord
from strop.compiler.artifact.folder import Artifact, read_intact
from strop.compiler.artifact.history import recall_source
from strop.compiler.debug.shapes import WORD
from strop.compiler.targets.target import OnnxTarget
from strop.compiler.util.errors import BudgetError, RuntimeRefusedError, UsageError
from strop.compiler.util.files.writing import write_whole
from strop.compiler.util.terminal import Console

SUBJECT = "strop"
# The same file, run by the runtime of a peer.
IN_OPENVINO, _OPENVINO = "strop in openvino", "openvino"
# ONNX Runtime's provider that engines run on.
_TIMED = "CPUExecutionProvider"
console = Console()


def schema() -> str:
    """The JSON schema of a record."""
    return json.dumps(DuelRecord.model_json_schema(), indent=2) + "\n"


def run_duel(wanted: Wanted) -> None:
    """Measure an artifact against its peers.

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
        title = f"strop bench {setup.artifacts[SUBJECT].path.name}"
        write_whole(wanted.html, page(title, [duel_section(record, "Duel")]))
    _judge(record, conditions, setup.against)


def _setup(wanted: Wanted) -> DuelSetup:
    """What to measure, with the artifact read and all names and sizes checked."""
    # `--shapes batch=1 seq=16` comes as an option with one value, and a word.
    separated = [w for w in wanted.words if wanted.shapes and WORD.fullmatch(w)]
    artifact = _artifact([w for w in wanted.words if w not in separated])
    dims = artifact.program(wanted.program)["contract"]["dims"]
    sizes = size_combinations([*wanted.shapes, *separated], dims)
    if makes_texts(artifact) and not wanted.program:
        return _text_setup(wanted, artifact, sizes)
    peers = wanted.peers()
    source = wanted.source or recall_source(artifact.path)
    if source is None and peers:
        raise UsageError(
            f"{', '.join(peers)} run the original model, and {artifact.path} was not built from a "
            "source on this machine: give --source FILE.py:make"
        )
    against = (DEFAULT if peers is None else peers) if source else ()
    artifacts = {SUBJECT: artifact}
    if _OPENVINO in against and not PEERS[_OPENVINO].lacks() and _is_standard(artifact):
        artifacts[IN_OPENVINO] = artifact
    in_openvino = frozenset({IN_OPENVINO} & set(artifacts))
    return DuelSetup(
        artifacts, source, against, sizes, wanted.plan, in_openvino, artifact.choose(wanted.program)
    )


def _text_setup(wanted: Wanted, artifact: Artifact, sizes: Sequence[Sizes]) -> DuelSetup:
    """The same where each token of texts is timed."""
    peers = wanted.peers(TEXT_PEERS)
    if wanted.plan.threads != [os.cpu_count()]:
        raise UsageError("--threads: texts are timed on all cores; leave it out")
    source = wanted.source or recall_source(artifact.path)
    known = source is not None and names_checkpoint(source)
    if not known and (peers or wanted.source):
        raise UsageError(
            f"{', '.join(peers or TEXT_DEFAULT)} run a checkpoint folder of transformers, and "
            f"{source or f'the source of {artifact.path}'} is none that is on this machine: give "
            "--source hf:PATH#text-generation"
        )
    against = (TEXT_DEFAULT if peers is None else peers) if known else ()
    prompts = sizes_of_prompts(artifact, sizes)
    plan, source = wanted.plan, source if known else None
    return DuelSetup({SUBJECT: artifact}, source, against, prompts, plan, texts=True)


def _is_standard(artifact: Artifact) -> bool:
    """Whether other runtimes than ONNX Runtime take the file."""
    return isinstance(artifact.target, OnnxTarget) and not artifact.target.contrib


def _artifact(folders: Sequence[str]) -> Artifact:
    if len(folders) != 1:
        given = f", not {', '.join(folders)}" if folders else ""
        raise UsageError(f"say which artifact to measure, one folder{given}: strop bench OUT")
    artifact = read_intact(folders[0])
    if isinstance(artifact.target, OnnxTarget) and artifact.target.providers[0] != _TIMED:
        raise UsageError(
            f"{folders[0]} is built for {artifact.target.name}; strop bench times files on the CPU"
        )
    return artifact


def _judge(record: DuelRecord, conditions: Sequence[Condition], against: Sequence[str]) -> None:
    row = record.engine(SUBJECT)
    if row.outcome != "ran":
        raise RuntimeRefusedError(f"the artifact {row.reason}")
    first = against[0] if against else None
    complaints = [found for c in conditions if (found := c.check(record, SUBJECT, first))]
    if complaints:
        raise BudgetError("; ".join(complaints))
