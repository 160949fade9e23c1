"""Where every node of the ONNX file comes from: kept beside the file, which holds no source lines.

The side file names each thing once and points at it by number; equal builds write equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from strop.compiler.artifact.folder import Artifact, provenance_file
from strop.compiler.lower.provenance import CAPTURE, Provenance
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import Strict, parse_json, validated
from strop.compiler.util.files.reading import is_there, read_text

FORMAT = 1


class _StoredProvenance(Strict):
    """The side file.

    Attributes:
        texts: rules, source lines, modules and operators, each once.
        ir: name, rule, line and module of each IR node; texts by number, -1 for none.
        nodes: name, operator, IR node and values of each ONNX node; no values where they are its
            name alone.
    """

    strop_provenance: Literal[1]
    texts: list[str]
    ir: list[Annotated[tuple[str, int, int, int], pydantic.Field(strict=False)]]
    nodes: list[Annotated[tuple[str, int, int, list[str]], pydantic.Field(strict=False)]]


def write_provenance(records: Iterable[Provenance], path: Path) -> None:
    """Write the side file."""
    path.write_text(encode(records))


def encode(records: Iterable[Provenance]) -> str:
    """The side file's text."""
    texts, ir = _Numbers(), _Numbers()
    rows = []
    for one in records:
        known = (texts.of(one.rule), texts.of(one.line), texts.of(one.module))
        values = [] if one.values == (one.name,) else list(one.values)
        rows.append((one.name, texts.of(one.op), ir.of((one.ir, *known)), values))
    fields = {"strop_provenance": FORMAT, "texts": texts.known, "ir": ir.known, "nodes": rows}
    return json.dumps(fields, separators=(",", ":")) + "\n"


class _Numbers:
    """Gives things numbers in the order in which they come; None is -1."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def of(self, thing: Any) -> int:
        return -1 if thing is None else self._numbers.setdefault(thing, len(self._numbers))

    @property
    def known(self) -> list[Any]:
        return list(self._numbers)


def decode(text: str, where: str) -> list[Provenance]:
    """What ``encode`` wrote.

    Args:
        text: of the side file.
        where: what it is, for messages.

    Raises:
        UsageError: the text is something else.
    """
    stored = validated(_StoredProvenance, parse_json(text, where), where)
    records = []
    for name, op, number, values in stored.nodes:
        ir, *known = _at(stored.ir, number, where)
        rule, line, module = (None if n == -1 else _at(stored.texts, n, where) for n in known)
        made, by = tuple(values) or (name,), _at(stored.texts, op, where)
        records.append(Provenance(name, by, made, ir, rule or CAPTURE, line, module))
    return records


def _at(things: Sequence[Any], number: int, where: str) -> Any:
    if not 0 <= number < len(things):
        raise UsageError(f"{where} is damaged: it points at {number} of {len(things)}")
    return things[number]


def read_provenance(artifact: Artifact, program: str = "") -> list[Provenance]:
    """Where the nodes of a program's file come from; of several programs, one is named.

    Raises:
        UsageError: the artifact has no such file, or it was damaged.
    """
    path = artifact.path / provenance_file(artifact.choose(program))
    if not is_there(path):
        raise UsageError(
            f"{artifact.path} has no {path.name}, which says where its nodes come from: it was "
            "removed, or an older strop built this. Build it again."
        )
    return decode(read_text(path, "the file", within=artifact.path), f"{path}")
