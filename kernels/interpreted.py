"""Loops in Triton's interpreter before 3.9, where numpy is 2.4 or newer.

A number that depends on the program's place is an array of one element there, and numpy does not
take such arrays for whole numbers any more: ``range`` over them fails.
"""

from __future__ import annotations

from typing import Any

import triton
from triton.runtime import interpreter

_MENDED = (3, 9)


def let_loops_count() -> None:
    """Take arrays of one element for whole numbers, as later versions do."""
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version >= _MENDED:
        return
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patched
