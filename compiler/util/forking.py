"""What a forked copy of a process must leave alone."""

from __future__ import annotations

import gc


def leave_garbage() -> None:
    """In the child: never collect objects that were there before the fork.

    A runtime's session among them would wait, when it is destroyed, for threads that only the
    parent has.
    """
    gc.freeze()
