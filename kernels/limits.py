"""What kernels take at most: for their launchers, and for passes that leave the rest to torch.

Nothing is imported here, so that passes need not load Triton.
"""

WIDEST_ROW = 16_384
"""Numbers of a row that a program holds in its registers, as for a norm."""
LARGEST_HEAD = 256
"""Channels of a head of 16 bits: more do not fit a program's registers."""
MOST_TABLES = 3
"""Embeddings that are added in one kernel."""
GROUP_STEP = 32
"""Numbers of a packed row that are multiplied in one step, and so share a scale."""


def largest_head(itemsize: int) -> int:
    """Channels of a head whose numbers have so many bytes: of float32 half as many."""
    return LARGEST_HEAD * 2 // max(itemsize, 2)
