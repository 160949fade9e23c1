"""Tracing that does not look whether a dynamic size happens to be 0 or 1 at the traced sizes."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch.fx.experimental import _config


def sizes_unseen() -> AbstractContextManager[None]:
    """Inside, torch asks of a dynamic size only what holds at all of them.

    A sequence of 9 tokens is one block of 16. Torch would take that 1 for a size that broadcasts,
    and the graph or the type for one that holds up to 16 tokens only.
    """
    patched: AbstractContextManager[None] = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return patched
