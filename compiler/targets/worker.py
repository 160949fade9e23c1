"""The process that opens and runs an artifact's files for ``targets/isolation.py``."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from strop.compiler.targets.runtime import Session, runtime_of
from strop.compiler.targets.target import get_target
from strop.compiler.util.array_pipe import Message, receive, send
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.latency import quick_look
from strop.compiler.util.numerics import Array


def serve(pipe: Connection) -> None:
    """Open the files that the first message names, then run them as asked.

    An answer holds ``refused``, the runtime's reason, where there is one.
    """
    session: Session | None = None
    while True:
        message, feeds = receive(pipe)
        try:
            if session is None:
                target = get_target(message["target"])
                folder, program = Path(message["folder"]), message["program"]
                session = runtime_of(target).open(folder, target, program)
                send(pipe, {"inputs": list(session.inputs), "outputs": list(session.outputs)})
            else:
                send(pipe, *_ran(session, message, feeds))
        except RuntimeRefusedError as error:
            send(pipe, {"refused": str(error)})


def _ran(
    session: Session, message: Message, feeds: dict[str, Array]
) -> tuple[Message, dict[str, Array]]:
    if message["timed"]:
        return {"milliseconds": quick_look(lambda: session.run(feeds, message["what"]))}, {}
    return {}, session.run(feeds, message["what"])
