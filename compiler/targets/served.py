"""The decoder of a process that serves files to another: what messages about it ask for."""

from __future__ import annotations

from collections.abc import Callable

from strop.compiler.targets.decoding import Decoder, Names, Start
from strop.compiler.util.array_pipe import Message
from strop.compiler.util.numerics import Array

Arrays = dict[str, Array]
ASKED = ("decode", "step", "repeat", "reorder")
"""What messages may ask of a decoder (``do``), as ``isolation.py`` sends them."""


class ServedDecoder:
    """Starts decoders, one after the other, and asks the last one."""

    def __init__(self, start: Callable[[Names, Start, bool], Decoder]) -> None:
        """Have none yet; ``start`` opens one, as ``Runtime.decoder`` does on a session."""
        self._start = start
        self._decoder: Decoder | None = None

    def answer(self, message: Message, arrays: Arrays) -> Arrays:
        """What a message asks for.

        Raises:
            RuntimeRefusedError: the runtime does not run it.
        """
        do: str = message["do"]
        if do == "decode":
            names = Names(**message["names"])
            empty = {name: arrays[name] for name in names.caches}
            fixed = {name: array for name, array in arrays.items() if name not in empty}
            self._decoder = self._start(names, Start(empty, fixed), message["shared"])
            return {}
        assert self._decoder is not None
        if do == "step":
            return {"scores": self._decoder.step(arrays["ids"], arrays["mask"])}
        if do == "repeat":
            self._decoder.repeat(message["times"])
        else:
            self._decoder.reorder(message["rows"])
        return {}
