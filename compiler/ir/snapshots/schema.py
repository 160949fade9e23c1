"""What a snapshot's JSON must hold, and of which types, before anything is made of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from strop.compiler.ir.contract import DTYPE_NAMES
from strop.compiler.util.files.parsing import Strict

MOST_NODES = 100_000


def _known(dtype: str) -> str:
    if dtype not in DTYPE_NAMES.values():
        raise ValueError(f"there is no dtype {dtype!r}")
    return dtype


Dtype = Annotated[str, pydantic.AfterValidator(_known)]
Size = Annotated[int, pydantic.Field(ge=0, lt=2**48)]
# Of 0 and 1 torch makes no symbols.
Hint = Annotated[int, pydantic.Field(ge=2, lt=2**48)]


class SymbolValues(Strict):
    """A symbol of the inputs' sizes: the user's name for it, its range, and its traced size."""

    name: str
    min: Size
    max: Size | None
    hint: Hint


class DimValues(Strict):
    """A dim of the contract and its range."""

    name: str
    min: Size
    max: Size | None


class PaddedValues(Strict):
    """Which positions of an output hold zeros: those where an input holds a value."""

    mask: str
    value: Literal[0, 1]


class StoredValues(Strict):
    """How a cache is kept where that is not as the model has it."""

    of: Dtype
    scales: list[float] = []


class SpecValues(Strict):
    """An input or output; sizes are numbers or in the user's names."""

    name: str
    dtype: Dtype
    shape: list[Size | str]
    tap: bool = False
    padded: PaddedValues | None = None
    stored: StoredValues | None = None


class ContractValues(Strict):
    """What the caller may rely on."""

    inputs: list[SpecValues]
    outputs: list[SpecValues]
    dims: list[DimValues]


class OriginValues(Strict):
    """Where a weight came from; ``kept`` lists, by axis, the original positions that are left."""

    sources: list[str]
    made_by: str
    kept: dict[Annotated[str, pydantic.Field(pattern=r"^\d{1,2}$")], list[int]] = {}


class NodeValues(Strict):
    """One node; ``args`` and ``kwargs`` are decoded when the nodes before it are known.

    Attributes:
        makes: names of the sizes that it makes from data.
    """

    name: str
    op: Literal["placeholder", "get_attr", "call_function", "output"]
    target: str
    dtype: Dtype | None = None
    shape: list[Size | str] = []
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    source: str | None = None
    modules: list[Annotated[list[str], pydantic.Field(min_length=2, max_length=2)]] = []
    made_by: str | None = None
    makes: list[str] = []


class SnapshotValues(Strict):
    """The whole of it; ``weights`` are names with the hashes of what they hold."""

    strop_snapshot: Literal[1]
    contract: ContractValues
    symbols: dict[str, SymbolValues]
    weights: dict[str, str]
    trained: list[str]
    origins: dict[str, OriginValues]
    nodes: Annotated[list[NodeValues], pydantic.Field(min_length=1, max_length=MOST_NODES)]
