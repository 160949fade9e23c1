"""Which of several processes this is, where ``torchrun`` or the like started more than one."""

from __future__ import annotations

import os


def rank() -> int:
    """The number of this process, from 0; the first one writes what all of them share."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many processes work together; 1 where nothing started more."""
    return int(os.environ.get("WORLD_SIZE", "1"))
