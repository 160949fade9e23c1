"""Where every node of the ONNX file comes from: kept beside the file, which holds no source lines.

The side file names each thing once and points at it by number; equal builds write equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from torch.fx.node import Node

from strop.compiler.artifact.folder import PROVENANCE, Artifact
from strop.compiler.ir.printer import source_line
from strop.compiler.lower.onnx.emitter import MADE_FROM
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import Strict, parse_json, validated
from strop.compiler.util.files.reading import is_there, read_text

FORMAT = 1
CAPTURE = "capture"


@dataclass(frozen=True)
class Provenance:
    """Where one ONNX node comes from.

    Attributes:
        name: of the ONNX node.
        op: its operator, as written.
        values: the names of the values that it makes.
        ir: the IR node that it was emitted for.
        rule: the rule that made the IR node; "capture" where none did.
        line: the source line, ``model.py:31``.
        module: path of the module that the line belongs to; "" is the model itself.
    """

    name: str
    op: str
    values: tuple[str, ...]
    ir: str
    rule: str
    line: str | None
    module: str | None


class _Stored(Strict):
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


def provenance(lowered: Any) -> list[Provenance]:
    """Of every node of an ``onnx_ir`` model that ``lower_to_onnx`` made, in order."""
    return [_of(node, node.meta[MADE_FROM]) for node in lowered.graph]


def _of(node: Any, made_from: Node) -> Provenance:
    return Provenance(
        name=node.name,
        op=node.op_type,
        values=tuple(value.name for value in node.outputs),
        ir=made_from.name,
        rule=made_from.meta.get("made_by", CAPTURE),
        line=source_line(made_from),
        module=module_path(made_from),
    )


def module_path(node: Node) -> str | None:
    """Path of the innermost module around a node: ``encoder.layer.0``; None where not known."""
    paths = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    # torch marks what its own tracing added, such as the sizes of inputs, by a path like this.
    known = [p for p in paths if not p.startswith("_empty_nn_module_stack")]
    return known[-1] if known else None


def write_provenance(lowered: Any, path: Path) -> None:
    """Write the side file of a lowered model."""
    path.write_text(encode(provenance(lowered)))


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
    stored = validated(_Stored, parse_json(text, where), where)
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


def read_provenance(artifact: Artifact) -> list[Provenance]:
    """Where the nodes of an artifact's ONNX file come from.

    Raises:
        UsageError: the artifact has no such file, or it was damaged.
    """
    path = artifact.path / PROVENANCE
    if not is_there(path):
        raise UsageError(
            f"{artifact.path} has no {PROVENANCE}, which says where its nodes come from: it was "
            "removed, or an older strop built this. Build it again."
        )
    return decode(read_text(path, "the file", within=artifact.path), f"{path}")
