"""Representative launches of a kernel: what the static gate compiles, and reports and models.

A kernel lists them by name, as calls of its launcher on tensors that have no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from strop.kernels.expression import evaluate
from strop.kernels.kernel import Kernel, Launch
from strop.kernels.launching import Recorded, recording


def tensor(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    """A tensor that has a shape and a dtype, and no memory: an argument of an example."""
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(kernel: Kernel) -> dict[str, Launch]:
    """The launch that each example of a kernel leads to, by the example's name.

    Raises:
        LookupError: an example leads to no launch of this kernel, or to several.
    """
    return {name: _launch(kernel, name) for name in kernel.examples}


def _launch(kernel: Kernel, name: str) -> Launch:
    with recording() as recorded:
        kernel.examples[name]()
    found = [made for made in taken_launches(recorded) if made.kernel.name == kernel.name]
    if len(found) != 1:
        raise LookupError(
            f"the example '{name}' leads to {len(found)} launches of kernel {kernel.name}, not one"
        )
    return replace(found[0], kernel=kernel)


def taken_launches(recorded: Recorded) -> Iterator[Launch]:
    """Those that are made at the sizes of the example."""
    for item in recorded:
        if isinstance(item, Launch):
            yield item
        else:
            yield from taken_launches(
                item.then if evaluate(item.when, item.sizes) else item.otherwise
            )
