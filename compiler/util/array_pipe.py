"""Messages with arrays over a pipe between two processes of strop's: JSON, then plain buffers.

Nothing is pickled, and an array is not copied on its way into or out of the pipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from strop.compiler.util.numerics import Array

Message = dict[str, Any]


def send(pipe: Connection, message: Message, arrays: Mapping[str, Array] | None = None) -> None:
    """Send a message of JSON values, with arrays by name.

    Raises:
        OSError: the far end is gone.
    """
    sent = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    kinds = [[name, a.dtype.str, a.shape] for name, a in sent.items()]
    pipe.send_bytes(json.dumps({"message": message, "arrays": kinds}).encode())
    for array in sent.values():
        if array.nbytes:
            pipe.send_bytes(_bytes_of(array))


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
        if arrays[name].nbytes:
            pipe.recv_bytes_into(_bytes_of(arrays[name]))
    return head["message"], arrays


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
