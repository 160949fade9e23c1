"""Which axes of the inputs vary: what the user wrote in ``dynamic``, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from strop.compiler.ir.contract import Dim, dims_of
from strop.compiler.util.errors import UsageError, did_you_mean

Extent = tuple[str, ...]
"""The dims whose sum is the size of an axis; but for sums it is one."""


@dataclass
class Dims:
    """The dims of a model and where they are.

    Attributes:
        axes: per input, the extent of each dynamic axis.
        named: the dims, by name.
        sums: the most that a sum of dims may be, where that is less than its parts allow.
    """

    axes: dict[str, dict[int, Extent]] = field(default_factory=dict)
    named: dict[str, Dim] = field(default_factory=dict)
    sums: dict[Extent, int] = field(default_factory=dict)


def read_dims(dynamic: Any, example: Mapping[str, torch.Tensor]) -> Dims:
    """Enter every axis that ``dynamic`` names.

    Raises:
        UsageError: it names an input or axis that is not there, or a sum of dims that are declared
            nowhere else; or the range of a dim is none, or is given twice.
    """
    dims, sums = Dims(), []
    for name, spec in _mapping(dynamic or {}, "dynamic").items():
        if name not in example:
            raise UsageError(f"dynamic names the input '{name}'{did_you_mean(name, list(example))}")
        dims.axes[name] = {}
        for axis, dim in _mapping(spec, f"dynamic['{name}']").items():
            _require_axis(name, axis, example[name])
            new = _dim(dim, f"dynamic['{name}'][{axis}]")
            extent = dims.axes[name][axis] = dims_of(new.name)
            if len(extent) > 1:
                sums.append((extent, new, f"dynamic['{name}'][{axis}]"))
            else:
                _add_dim(dims.named, new, isinstance(dim, str))
    for extent, new, what in sums:
        _add_sum(dims, extent, new, what)
    return dims


def _mapping(given: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{what} is {type(given).__name__}; write dynamic={{'input': {{axis: 'dim name'}}}}"
        )
    return given


def _require_axis(name: str, axis: Any, tensor: torch.Tensor) -> None:
    if not isinstance(axis, int) or not 0 <= axis < tensor.dim():
        raise UsageError(f"dynamic['{name}'] names axis {axis}; the tensor has {tensor.dim()} axes")


def _dim(spec: Any, what: str) -> Dim:
    if isinstance(spec, str):
        return Dim(spec, 1, None)
    if not isinstance(spec, (tuple, list)) or [type(v) for v in spec] != [str, int, int]:
        raise UsageError(f"{what} is {spec!r}; write 'name' or ('name', min, max)")
    name, low, high = spec
    if not 0 <= low <= high:
        raise UsageError(f"{what}: dim '{name}' has the range {low} to {high}")
    return Dim(name, low, high)


def _add_dim(named: dict[str, Dim], new: Dim, without_range: bool) -> None:
    known = named.setdefault(new.name, new)
    if without_range or known == new:
        return
    if known != Dim(new.name, 1, None):
        raise UsageError(
            f"dim '{new.name}' has two ranges: {known.min} to {known.max} and {new.min} to "
            f"{new.max}; axes that share a name are equal, so give the range once"
        )
    named[new.name] = new


def _add_sum(dims: Dims, extent: Extent, new: Dim, what: str) -> None:
    """Enter the range of a sum, once its parts are known.

    Raises:
        UsageError: a part is declared nowhere else, or the range is none that the parts reach.
    """
    lost = [part for part in extent if part not in dims.named]
    if lost:
        raise UsageError(
            f"{what} is '{new.name}', a sum of dims, but no other axis is declared as "
            f"'{lost[0]}'{did_you_mean(lost[0], list(dims.named))}"
        )
    if new.max is None:
        return
    low = sum(dims.named[part].min for part in extent)
    if new.min > low or new.max < low:
        raise UsageError(
            f"{what}: '{new.name}' has the range {new.min} to {new.max}, but its parts together "
            f"start at {low}; the least of a sum follows from its parts"
        )
    if dims.sums.setdefault(extent, new.max) != new.max:
        raise UsageError(
            f"'{new.name}' has two ranges, up to {dims.sums[extent]} and up to {new.max}; give the "
            "range once"
        )
