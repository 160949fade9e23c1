"""What a duel compares and how, and what the original model gives on its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.bench.harness.peers import PEERS, Peer
from strop.bench.harness.subject import Reference, Sizes, made_up, references
from strop.bench.harness.text_peers import CONFIG, TEXT_PEERS, checkpoint_of
from strop.bench.harness.texts import prompts
from strop.bench.processes.spawned import EngineError, isolated
from strop.bench.records.record import Plan
from strop.compiler.artifact.folder import Artifact
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.reading import read_json


@dataclass(frozen=True)
class DuelSetup:
    """What is to be compared, and how.

    Attributes:
        artifacts: strop's own, by the name they get in tables.
        in_openvino: the names of those that OpenVINO runs, not ONNX Runtime.
        program: which of several programs is measured; "" where there is one.
        source: of the original model; None where it is not known.
        against: names of peers; the first that runs is the baseline.
        sizes: the cases; the example's own sizes if there are none.
        plan: how to measure.
        texts: whether tokens of texts are timed, not single runs of a program. ``sizes`` are those
            of prompts then, and the source is a checkpoint folder.
    """

    artifacts: Mapping[str, Artifact]
    source: str | None
    against: Sequence[str]
    sizes: Sequence[Sizes]
    plan: Plan
    in_openvino: frozenset[str] = frozenset()
    program: str = ""
    texts: bool = False

    @property
    def peers(self) -> Mapping[str, Peer]:
        """Those that can take part."""
        return TEXT_PEERS if self.texts else PEERS


def references_of(setup: DuelSetup) -> list[Reference]:
    """Inputs of each case, and the original's outputs where it is known.

    Raises:
        UsageError: the original does not run, or is not what the artifact was built from.
    """
    artifact = next(iter(setup.artifacts.values()))
    if setup.texts:
        if setup.source is not None:
            _require_config(setup.source, artifact)
        return prompts(artifact, setup.sizes)
    contract = artifact.program(setup.program)["contract"]
    if setup.source is None:
        return made_up(contract, setup.sizes)
    source, timeout = setup.source, setup.plan.timeout
    try:
        found: list[Reference] = isolated(
            references, source, setup.sizes, setup.program, timeout=timeout
        )
    except EngineError as error:
        raise UsageError(f"the original model ({source}) does not run: {error}") from error
    _require_names(found[0], contract, source)
    _require_shapes(found[0], contract, source)
    return found


def _require_config(source: str, artifact: Artifact) -> None:
    """Refuse a checkpoint whose config has other sizes than the artifact's."""
    config = read_json(checkpoint_of(source) / CONFIG, "the file")
    for name, want in artifact.manifest["generation"]["sizes"].items():
        if (got := config.get(name, want)) != want:
            raise UsageError(
                f"{source} is not what the artifact was built from: its {name} is {got}, the "
                f"artifact's is {want}. Give its own --source."
            )


def _require_names(found: Reference, contract: Mapping[str, Any], source: str) -> None:
    """Refuse an original with other inputs, outputs or dims than the artifact's."""
    for what, got, want in (
        ("inputs", found.feeds, contract["inputs"]),
        ("outputs", found.outputs or {}, contract["outputs"]),
        ("dims", found.sizes, contract["dims"]),
    ):
        if set(got) != {w["name"] for w in want}:
            names = [", ".join(sorted(n)) or "none" for n in (got, [w["name"] for w in want])]
            raise UsageError(
                f"{source} is not what the artifact was built from: it has the {what} {names[0]}, "
                f"the artifact has {names[1]}. Give its own --source."
            )


def _require_shapes(found: Reference, contract: Mapping[str, Any], source: str) -> None:
    """Refuse an original whose outputs have other shapes than the artifact's."""
    for spec in contract["outputs"]:
        got, want = list((found.outputs or {})[spec["name"]].shape), spec["shape"]
        if len(got) != len(want) or any(w not in (g, str(w)) for g, w in zip(got, want)):
            raise UsageError(
                f"{source} is not what the artifact was built from: its output '{spec['name']}' "
                f"has the shape {got}, the artifact's has {want}. Give its own --source."
            )
