"""Messages with arrays over a pipe between two processes of strop's: JSON, then plain buffers.

Nothing is pickled, and no array is copied as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from strop.compiler.util.numerics import Array

Message = dict[str, Any]
_BLOCK = 4 << 20


def send(pipe: Connection, message: Message, arrays: Mapping[str, Array] | None = None) -> None:
    """Send a message of JSON values, with arrays by name.

    Raises:
        OSError: the far end is gone.
    """
    # Not ascontiguousarray: it gives an array without axes one.
    sent = {name: np.asarray(array, order="C") for name, array in (arrays or {}).items()}
    kinds = [[name, a.dtype.str, a.shape] for name, a in sent.items()]
    pipe.send_bytes(json.dumps({"message": message, "arrays": kinds}).encode())
    for array in sent.values():
        for block in _blocks(array):
            pipe.send_bytes(block)


def receive(pipe: Connection) -> tuple[Message, dict[str, Array]]:
    """Wait for the next message.

    Raises:
        EOFError: the far end is gone.
        OSError: it went in the middle of a message.
    """
    head = json.loads(pipe.recv_bytes())
    arrays: dict[str, Array] = {}
    for name, dtype, shape in head["arrays"]:
        arrays[name] = np.empty(shape, np.dtype(dtype))
        for block in _blocks(arrays[name]):
            pipe.recv_bytes_into(block)
    return head["message"], arrays


def _blocks(array: Array) -> Iterator[memoryview]:
    """The bytes of a contiguous array, in parts: the pipe holds a copy of each while it comes."""
    whole = array.reshape(-1).view(np.uint8).data
    return (whole[i : i + _BLOCK] for i in range(0, array.nbytes, _BLOCK))
