"""An artifact's files opened and run in a process of their own.

A runtime is native code, and what it is given is new: it may crash, hang, or take all memory there
is. Then it is that process that ends, and the build says so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from strop.compiler.targets.decoding import Names, Start
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import MAIN, Target
from strop.compiler.util.array_pipe import Message, receive, send
from strop.compiler.util.child import Child
from strop.compiler.util.errors import RuntimeEndedError, RuntimeRefusedError, UsageError
from strop.compiler.util.limits import available_memory
from strop.compiler.util.numerics import Array

# Seconds for one answer. What takes torch long may take the runtime longer, by this factor.
PATIENCE = 600.0
TIMES_AS_LONG = 100.0


class IsolatedSession:
    """A ``Session`` whose files are open in another process."""

    def __init__(self, child: Child, folder: Path, target: Target, program: str) -> None:
        self.target = target
        self._child, self._one_at_a_time = child, threading.Lock()
        self._ended: RuntimeEndedError | None = None
        wanted = {"folder": str(folder), "target": target.name, "program": program}
        opened, _ = self.ask(wanted, {}, "load")
        self.inputs: Sequence[str] = opened["inputs"]
        self.outputs: Sequence[str] = opened["outputs"]

    def run(
        self, feeds: Mapping[str, Array], what: str = "", seconds: float = 0.0
    ) -> dict[str, Array]:
        """Run once; outputs by name.

        Args:
            feeds: arrays by name; those that the files do not read are ignored.
            what: what is run, for the message of an error.
            seconds: how long the original took.

        Raises:
            RuntimeRefusedError: the runtime does not run it.
            RuntimeEndedError: it crashed, hung, or took more memory than there is.
        """
        return self._asked_to_run("run", feeds, what, seconds)[1]

    def milliseconds(self, feeds: Mapping[str, Array], what: str, seconds: float = 0.0) -> float:
        """A quick look at how long one run takes; arguments and errors are those of ``run``.

        Raises:
            RuntimeRefusedError: what runs the files here is not what the target runs them by.
        """
        stand_in = runtime_of(self.target).stand_in(self.target)
        if stand_in is not None:
            raise RuntimeRefusedError(
                f"{stand_in.why}, and how long {stand_in.name} takes says nothing of "
                f"{self.target.name}"
            )
        return float(self._asked_to_run("time", feeds, what, seconds)[0]["milliseconds"])

    def decoder(self, names: Names, start: Start, shared: bool) -> IsolatedDecoder:
        """A decoder on the files, whose caches lie in the other process; it ends the one before.

        Args:
            names: of its inputs and outputs.
            start: its inputs before the first call.
            shared: whether past and present of a cache may be one buffer.
        """
        message = {"do": "decode", "names": asdict(names), "shared": shared}
        self.ask(message, {**start.empty, **start.fixed}, "start a decoder")
        return IsolatedDecoder(self)

    def _asked_to_run(
        self, do: str, feeds: Mapping[str, Array], what: str, seconds: float
    ) -> tuple[Message, dict[str, Array]]:
        used = {name: feeds[name] for name in self.inputs}
        limit = max(PATIENCE, TIMES_AS_LONG * seconds)
        return self.ask({"do": do, "what": what}, used, f"run the model ({what})", limit)

    def ask(
        self, message: Message, arrays: Mapping[str, Array], doing: str, limit: float = PATIENCE
    ) -> tuple[Message, dict[str, Array]]:
        """Send a message to the other process, and wait for its answer.

        Args:
            message: says what to do; see ``targets/worker.py``.
            arrays: that go with it.
            doing: what it is asked for, for the message of an error.
            limit: seconds after which it is ended.

        Raises:
            RuntimeRefusedError: the runtime does not do it.
            RuntimeEndedError: it crashed, hung, or took more memory than there is.
        """
        with self._one_at_a_time:
            if self._ended is not None:
                raise self._ended
            try:
                send(self._child.pipe, message, arrays)
                if not self._child.pipe.poll(limit):
                    raise self._end(f"did not {doing} within {limit:g} s, and was ended")
                answer, found = receive(self._child.pipe)
            except (EOFError, OSError) as error:
                how = self._child.last_words()
                raise self._end(f"did not {doing}: its process {how}") from error
        if "refused" in answer:
            raise RuntimeRefusedError(answer["refused"])
        return answer, found

    def _end(self, why: str) -> RuntimeEndedError:
        """End the process; whatever it is asked from now on, this is why it gives no answer."""
        self._child.end()
        self._ended = RuntimeEndedError(f"the runtime {why}")
        return self._ended


class IsolatedDecoder:
    """A ``Decoder`` whose caches lie in another process; only ids, masks and scores are sent."""

    def __init__(self, session: IsolatedSession) -> None:
        self._session = session

    def step(self, ids: Array, mask: Array) -> Array:
        """One call; see ``Decoder.step``."""
        doing = f"run the decoder with {mask.shape[0]} texts of {mask.shape[1]} tokens"
        found = self._session.ask({"do": "step"}, {"ids": ids, "mask": mask}, doing)[1]
        return found["scores"]

    def repeat(self, times: int) -> None:
        """Repeat caches and fixed inputs."""
        self._session.ask({"do": "repeat", "times": times}, {}, "repeat the caches")

    def reorder(self, rows: Sequence[int]) -> None:
        """Choose rows of the caches."""
        self._session.ask({"do": "reorder", "rows": list(rows)}, {}, "reorder the caches")


@contextmanager
def open_isolated(folder: Path, target: Target, program: str = MAIN) -> Iterator[IsolatedSession]:
    """A program's files opened by their runtime, in a process that lives as long as the block.

    Raises:
        UsageError: no process can be started.
        RuntimeRefusedError: the runtime does not take the files, or ends while it reads them.
    """
    try:
        child = Child("strop.compiler.targets.worker:serve", available_memory())
    except OSError as error:
        raise UsageError(f"no process can be started to check the file in: {error}") from error
    try:
        yield IsolatedSession(child, folder, target, program)
    finally:
        child.end()
