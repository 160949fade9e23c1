"""The process that opens and runs an artifact's files for ``targets/isolation.py``."""

from __future__ import annotations

from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from strop.compiler.targets.runtime import Session, runtime_of
from strop.compiler.targets.served import Arrays, ServedDecoder
from strop.compiler.targets.target import Target, get_target
from strop.compiler.util.array_pipe import Message, receive, send
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.latency import quick_look


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
        self._decoder = ServedDecoder(partial(self.runtime.decoder, self.session))

    def answer(self, message: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        """What a message asks for; ``do`` says what that is."""
        do: str = message["do"]
        if do == "run":
            return {}, self.session.run(arrays, message["what"])
        if do == "time":
            took = quick_look(lambda: self.session.run(arrays, message["what"]))
            return {"milliseconds": took}, {}
        return {}, self._decoder.answer(message, arrays)
