"""Where the nodes of a lowered program come from."""

from __future__ import annotations

from dataclasses import dataclass

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
