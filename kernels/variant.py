"""Variants: what is compiled. A kernel with the types of its arguments and its constants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from strop.kernels.kernel import Constant

ABSENT = "none"
ALIGNMENT = 16


@dataclass(frozen=True)
class Variant:
    """What one compiled kernel is made from; equal ones give the same bytes.

    Attributes:
        kernel: its name in the registry.
        types: name and type of each argument, in the order of the function's parameters: "*fp16",
            "*i8", ... for a tensor, "i32" or "i64" for a whole number, "fp32" for any other,
            "none" for an optional tensor that is not there (and that is no parameter of the
            compiled kernel).
        aligned: names of arguments that are multiples of 16: addresses and whole numbers.
        constants: compile-time values by name, those of the configuration included.
        num_warps: warps of 32 threads that work on one program.
        num_stages: loads in flight in a pipelined loop.
    """

    kernel: str
    types: tuple[tuple[str, str], ...]
    aligned: tuple[str, ...]
    constants: tuple[tuple[str, Constant], ...]
    num_warps: int
    num_stages: int

    @property
    def name(self) -> str:
        """The kernel's name and a short hash of all the rest, such as ``norm-3f9a1c04``."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return f"{self.kernel}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def signature(self) -> str:
        """Its arguments and their types, for people."""
        return ", ".join(f"{name}: {kind}" for name, kind in self.types)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the types are a list of pairs, since their order counts."""
        return asdict(self) | {"constants": dict(self.constants)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Variant:
        """The variant that ``to_json`` gave these values for.

        Raises:
            KeyError: a field is missing.
        """
        return Variant(
            values["kernel"],
            tuple((name, kind) for name, kind in values["types"]),
            tuple(values["aligned"]),
            tuple(sorted(values["constants"].items())),
            values["num_warps"],
            values["num_stages"],
        )
