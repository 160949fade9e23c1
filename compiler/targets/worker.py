"""The process that opens and runs an artifact's files for ``targets/isolation.py``."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from strop.compiler.targets.decoding import Decoder, Names, Start
from strop.compiler.targets.runtime import Session, runtime_of
from strop.compiler.targets.target import Target, get_target
from strop.compiler.util.array_pipe import Message, receive, send
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.latency import quick_look
from strop.compiler.util.numerics import Array

Arrays = dict[str, Array]


def serve(pipe: Connection) -> None:
    """Open the files that the first message names, then run them as asked.

    An answer holds ``refused``, the runtime's reason, where there is one.
    """
    opened: _Opened | None = None
    while True:
        message, feeds = receive(pipe)
        try:
            if opened is None:
                target = get_target(message["target"])
                opened = _Opened(Path(message["folder"]), target, message["program"])
                session = opened.session
                send(pipe, {"inputs": list(session.inputs), "outputs": list(session.outputs)})
            else:
                send(pipe, *opened.answer(message, feeds))
        except RuntimeRefusedError as error:
            send(pipe, {"refused": str(error)})


class _Opened:
    """Files that were opened, and the decoder that runs on them."""

    def __init__(self, folder: Path, target: Target, program: str) -> None:
        self.runtime = runtime_of(target)
        self.session: Session = self.runtime.open(folder, target, program)
        self._decoder: Decoder | None = None

    def answer(self, message: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        """What a message asks for; ``do`` says what that is."""
        do: str = message["do"]
        if do == "run":
            return {}, self.session.run(arrays, message["what"])
        if do == "time":
            took = quick_look(lambda: self.session.run(arrays, message["what"]))
            return {"milliseconds": took}, {}
        if do == "decode":
            self._decode(message, arrays)
            return {}, {}
        return {}, self._stepped(do, message, arrays)

    def _decode(self, message: Message, arrays: Arrays) -> None:
        """Start a decoder anew."""
        names = Names(**message["names"])
        empty = {name: arrays[name] for name in names.caches}
        fixed = {name: array for name, array in arrays.items() if name not in empty}
        start, shared = Start(empty, fixed), message["shared"]
        self._decoder = self.runtime.decoder(self.session, names, start, shared)

    def _stepped(self, do: str, message: Message, arrays: Arrays) -> Arrays:
        assert self._decoder is not None
        if do == "step":
            return {"scores": self._decoder.step(arrays["ids"], arrays["mask"])}
        if do == "repeat":
            self._decoder.repeat(message["times"])
        else:
            self._decoder.reorder(message["rows"])
        return {}
