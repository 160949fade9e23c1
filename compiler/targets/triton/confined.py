"""Holds Triton's interpreter to the tensors that a launch was given.

The interpreter reads and writes at whatever address a kernel computes, as a GPU does. Here every
address is looked at first: a plan, from whomever, cannot reach other memory, and a kernel that
leaves its tensors, if only by one element, is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from strop.compiler.util.errors import RuntimeRefusedError

Regions = list[tuple[int, int]]
# Kernels of strop's have no other access to memory.
_CHECKED = {"create_masked_load": (0, 1), "create_masked_store": (0, 2)}
_REFUSED = (
    "create_atomic_cas",
    "create_atomic_rmw",
    "create_descriptor_load",
    "create_descriptor_store",
    "create_descriptor_gather",
    "create_descriptor_scatter",
)


@contextmanager
def confined(tensors: Sequence[Tensor]) -> Iterator[None]:
    """In the block, launches access the given tensors and nothing else.

    Raises:
        RuntimeRefusedError: a kernel reads or writes outside of them.
    """
    from triton.runtime.interpreter import interpreter_builder as builder

    regions = sorted(_region(tensor) for tensor in tensors if tensor.numel())
    changed = {
        name: _checking(getattr(builder, name), places, regions)
        for name, places in _CHECKED.items()
    }
    changed |= {name: _refuse for name in _REFUSED}
    for name, function in changed.items():
        setattr(builder, name, function)
    try:
        yield
    finally:
        for name in changed:
            delattr(builder, name)


def _region(tensor: Tensor) -> tuple[int, int]:
    """The first byte of a tensor, and the one behind its last."""
    steps = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride()))
    start = tensor.data_ptr()
    return start, start + (steps + 1) * tensor.element_size()


def _checking(access: Any, places: tuple[int, int], regions: Regions) -> Callable[..., Any]:
    pointer, masked = places

    def checked(*arguments: Any) -> Any:
        pointers, mask = arguments[pointer], arguments[masked]
        addresses = np.broadcast_to(pointers.data, np.shape(mask.data))[mask.data]
        _require_inside(addresses, pointers.get_element_ty().primitive_bitwidth // 8, regions)
        return access(*arguments)

    return checked


def _require_inside(addresses: Any, itemsize: int, regions: Regions) -> None:
    """Check that all elements at these addresses lie in one of the regions.

    Regions may overlap: of those that begin before an element, the one that ends last counts.
    """
    if not addresses.size:
        return
    starts = np.array([start for start, _ in regions], dtype=np.uint64)
    ends = np.maximum.accumulate(np.array([end for _, end in regions], dtype=np.uint64))
    place = np.searchsorted(starts, addresses.astype(np.uint64), side="right") - 1
    if not regions or place.min() < 0:
        raise RuntimeRefusedError("a kernel reads or writes outside of its tensors")
    if (addresses.astype(np.uint64) + np.uint64(itemsize) > ends[place]).any():
        raise RuntimeRefusedError("a kernel reads or writes outside of its tensors")


def _refuse(*_: Any) -> None:
    raise RuntimeRefusedError("a kernel accesses memory in a way that is not checked here")
