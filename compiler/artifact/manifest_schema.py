"""What a manifest must hold to be read, and of which types; it may hold more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from strop.compiler.frontend.programs import PROGRAM_NAME
from strop.compiler.util.files.parsing import Strict, validated
from strop.compiler.util.numerics import DriftValues

Count = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
ProgramName = Annotated[str, pydantic.Field(pattern=rf"^{PROGRAM_NAME}$")]
Digest = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


class _Open(Strict):
    """A part to which later versions of strop may add."""

    model_config = pydantic.ConfigDict(extra="allow")


class FileValues(Strict):
    """A file of the artifact."""

    sha256: Digest
    bytes: Count


class PaddedValues(Strict):
    """Which positions of an output, [batch, seq, ...], hold zeros."""

    mask: str
    """An input, [batch, seq]."""
    value: Literal[0, 1]
    """What it holds at these positions."""


class StoredValues(Strict):
    """How a cache is kept where that is not as the model has it."""

    of: str
    """The model's own dtype."""


class TensorValues(Strict):
    """An input or output; sizes are numbers or in the user's names."""

    name: str
    dtype: str
    shape: list[Count | str]
    tap: Literal[False] = False
    """Values inside a program, which passes look at while they learn, are no outputs of files."""
    padded: PaddedValues | None = None
    """None where every position holds what the model gives."""
    stored: StoredValues | None = None
    """None where the dtype is the model's own."""


class ManifestDim(Strict):
    """A dim and its range; ``max`` is None where it has no end."""

    name: str
    min: Count
    max: Count | None


class ManifestContract(Strict):
    """What the caller may rely on."""

    inputs: list[TensorValues]
    outputs: list[TensorValues]
    dims: list[ManifestDim]


class OpenDriftValues(DriftValues, _Open):
    """How far outputs moved in one pass."""


class MissValues(Strict):
    """What a rule left as it is, and why."""

    rule: str
    root: str
    reason: str
    lines: list[str]
    root_name: str = ""
    kind: str = ""


class SourceValues(_Open):
    """What a pass learned from: SHA-256 hashes, and the seed; None of what there was not."""

    program: Digest
    teacher: Digest | None
    data: dict[str, Digest | None]
    seed: int


class LearnedValues(_Open):
    """What a pass that learns says of it: always the same for the same source."""

    source: Annotated[SourceValues, pydantic.Field(alias="from")]
    facts: dict[str, Any]


class PassValues(_Open):
    """What one pass did."""

    name: str
    nodes_before: Count
    nodes_after: Count
    bytes_before: Count
    bytes_after: Count
    rewrites: dict[str, Count]
    previous: OpenDriftValues | None
    original: OpenDriftValues | None
    learned: LearnedValues | None = None
    notes: list[str] = []
    misses: list[MissValues] = []


class CheckValues(_Open):
    """One output of one case against the original's."""

    case: str
    output: str
    max_error: float
    """For outputs that are not float this is ``mismatches``, under the older name."""
    cosine: float | None
    mismatches: float | None = None
    """Share of elements that differ, for outputs that are not float."""
    in_torch: bool = False
    """Whether the program in torch gave it, and not the files."""


class LeftOutValues(_Open):
    """Declared sizes that were not run, for their cost."""

    sizes: dict[str, Count]


class CountedValues(Strict):
    """How many calibration inputs there are, and how many were run."""

    given: Count
    run: Count


class SizesValues(_Open):
    """At which sizes original and file were compared."""

    run: list[dict[str, Count]]
    left_out: list[LeftOutValues]
    calibration: CountedValues


class ProgramValues(_Open):
    """What is known of one program."""

    contract: ManifestContract
    passes: list[PassValues]
    checks: Annotated[list[CheckValues], pydantic.Field(min_length=1)]
    sizes: SizesValues | None = None
    batch_invariant: bool | None = None
    """Whether a row gets the numbers that it gets alone, where those of the original do."""
    spanning_operators: dict[str, Count] = {}
    """Operators that take one scale for a whole batch, and how many of each there are."""
    metrics: dict[str, dict[str, float]]
    notes: list[str]


class GenerationValues(_Open):
    """How the programs are called token by token; see ``frontend.generation.Generation``."""

    caches: dict[str, str]
    context: Annotated[int, pydantic.Field(gt=0, lt=2**31)]
    eos: list[Count]
    pad: Count
    bos: Count | None
    start: list[Count]
    suppressed: list[Count] = []
    suppressed_first: list[Count] = []
    last: Count | None = None
    ids: str
    mask: str
    logits: str
    cross: dict[str, str]
    family: str
    sizes: dict[str, pydantic.JsonValue]
    shared_buffers: bool
    """Whether a cache may be given as one buffer that is input and output at once."""
    prefill: Literal["", "prefill"] = ""
    """The name of a second file of the same decoder, faster at many new tokens; "" for none."""


class TextValues(_Open):
    """One text of the original, along which the artifact was led."""

    case: str
    tokens: Count
    equal: Count
    first_difference: dict[str, Count] | None
    """The row, and the number of the token in it; both make the same text up to there."""
    max_error: float
    cosine: float


class GeneratedValues(_Open):
    """How the artifact generates beside the original."""

    texts: list[TextValues]
    agreement: float
    """The share of tokens that it chooses as the original does."""
    perplexity: dict[str, float | None]
    left_out: list[str]


class ArtifactValues(_Open):
    """What is known of the artifact as a whole."""

    target: str
    files: dict[str, FileValues]
    side_files: dict[str, FileValues] = {}
    assets: dict[str, FileValues] = {}
    labels: dict[str, str] = {}
    generation: GenerationValues | None = None
    generated: GeneratedValues | None = None
    notes: list[str]


class ManifestValues(ProgramValues, ArtifactValues):
    """The whole manifest of one program."""


class SeveralValues(ArtifactValues):
    """The whole manifest of several programs."""

    programs: Annotated[dict[ProgramName, ProgramValues], pydantic.Field(min_length=1)]


def read_manifest(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check a manifest; its values, with defaults for what an older strop did not write.

    Raises:
        UsageError: a value is missing or of another type.
    """
    kind = SeveralValues if "programs" in values else ManifestValues
    read: ArtifactValues = validated(kind, values, where)
    absent = {name for name in ("generation", "generated") if getattr(read, name) is None}
    return read.model_dump(exclude=absent)


class TimeValues(_Open):
    """The times of one program."""

    pass_seconds: dict[str, float] = {}
    milliseconds: dict[str, Any] = {}


class BuildValues(TimeValues):
    """What is read of ``build.json``."""

    notes: list[str] = []
    programs: dict[str, TimeValues] = {}
    """Of each program, where there are several; else the times stand beside the notes."""
