"""Inputs to run an artifact on: from the source it was built from, or made up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from strop.compiler.artifact.folder import Artifact
from strop.compiler.artifact.history import recall_source
from strop.compiler.debug.shapes import parse_sizes
from strop.compiler.frontend.inputs import read_inputs, resize
from strop.compiler.frontend.source import load_model
from strop.compiler.ir.contract import DTYPE_NAMES, size_at
from strop.compiler.ir.running import in_dtypes
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array

# The size of a dim where none is given.
USUAL_SIZE = 8
# A gigabyte of made-up inputs.
MOST_ELEMENTS = 1 << 27


@dataclass(frozen=True)
class Feeds:
    """One set of inputs.

    Attributes:
        arrays: by name.
        sizes: of the dynamic dims, by name.
        origin: where the inputs come from, in words.
    """

    arrays: dict[str, Array]
    sizes: dict[str, int]
    origin: str


def one_size_each(words: Sequence[str], dims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """One size for each dim named in ``batch=1 seq=128``.

    Raises:
        UsageError: not of this form, an unknown dim, several sizes, or one outside its range.
    """
    chosen = parse_sizes(words, dims)
    for name, sizes in chosen.items():
        if len(sizes) > 1:
            raise UsageError(f"--shapes: one size of '{name}' at a time, not {sizes}")
    return {name: sizes[0] for name, sizes in chosen.items()}


def feeds_for(
    artifact: Artifact, source: str = "", sizes: Mapping[str, int] | None = None, program: str = ""
) -> Feeds:
    """Inputs from a source, from the one that the artifact was built from here, or made up.

    Args:
        artifact: what takes them.
        source: that was asked for; "" where none was.
        sizes: of dynamic dims.
        program: which of several takes them.

    Raises:
        UsageError: the source that was asked for is wrong, or nothing can be made up.
    """
    contract = artifact.program(program)["contract"]
    if source:
        return feeds_of(source, contract, sizes or {}, program)
    known = recall_source(artifact.path)
    if known is None:
        return made_up(contract, sizes or {}, "no source of this artifact is known here")
    try:
        return feeds_of(known, contract, sizes or {}, program)
    except UsageError as error:  # it was edited or moved since
        return made_up(contract, sizes or {}, str(error).splitlines()[0])


def feeds_of(
    source: str, contract: Mapping[str, Any], sizes: Mapping[str, int], program: str = ""
) -> Feeds:
    """The largest inputs that a source gives, cropped or repeated to the sizes.

    Raises:
        UsageError: the source is wrong, or gives other inputs than the artifact takes.
    """
    signature, example, calibration = read_inputs(load_model(source, program))
    if set(signature.dims) != {d["name"] for d in contract["dims"]}:
        raise UsageError(f"{source} has the dims {sorted(signature.dims)}, the artifact others")
    largest = max([example, *calibration], key=lambda i: sum(t.numel() for t in i.values()))
    wanted = {i["name"]: i["dtype"] for i in contract["inputs"]}
    inputs = in_dtypes(resize(largest, signature, sizes), wanted)
    found = {n: DTYPE_NAMES.get(t.dtype, str(t.dtype)) for n, t in inputs.items()}
    if found != wanted:
        raise UsageError(f"{source} gives the inputs {found}, the artifact takes {wanted}")
    arrays = {n: to_array(t) for n, t in inputs.items()}
    return Feeds(arrays, signature.sizes(inputs), f"inputs of {source}")


def made_up(contract: Mapping[str, Any], sizes: Mapping[str, int], why: str = "") -> Feeds:
    """Normal floats, and ones elsewhere, at the sizes; where none is given, at small ones.

    Raises:
        UsageError: an input has a size that is computed from others, or the inputs together are
            too large.
    """
    origin = f"made-up inputs ({why})" if why else "made-up inputs"
    usual = {d["name"]: _usual_size(d) for d in contract["dims"]}
    reached = usual | dict(sizes)
    generator = np.random.default_rng(0)
    shapes = {i["name"]: _shape(i, reached) for i in contract["inputs"]}
    if sum(math.prod(shape) for shape in shapes.values()) > MOST_ELEMENTS:
        raise UsageError(
            f"the artifact's inputs at {reached} have more than {MOST_ELEMENTS:,} elements; "
            "give smaller sizes, or --source"
        )
    arrays = {i["name"]: _made_up(i, shapes[i["name"]], generator) for i in contract["inputs"]}
    return Feeds(arrays, reached, origin)


def _usual_size(dim: Mapping[str, Any]) -> int:
    return max(int(dim["min"]), min(USUAL_SIZE, dim["max"] or USUAL_SIZE))


def _shape(spec: Mapping[str, Any], sizes: Mapping[str, int]) -> list[int]:
    known = [size for s in spec["shape"] if (size := size_at(s, sizes)) is not None]
    if len(known) < len(spec["shape"]) or spec["dtype"] not in _DTYPES:
        raise UsageError(
            f"no values can be made up for the input '{spec['name']}' "
            f"({spec['dtype']}{spec['shape']}); give --source"
        )
    return known


def _made_up(spec: Mapping[str, Any], shape: list[int], random: np.random.Generator) -> Any:
    dtype = np.dtype(_DTYPES[spec["dtype"]])
    return random.normal(size=shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)


_DTYPES = {
    "f32": "float32", "f64": "float64", "f16": "float16", "i64": "int64", "i32": "int32",
    "i16": "int16", "i8": "int8", "u8": "uint8", "bool": "bool",
}  # fmt: skip
