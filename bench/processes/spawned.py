"""New processes that answer over a pipe: an error, a crash or a hang there is an exception here."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from strop.compiler.util.child import FAREWELL, ending
from strop.compiler.util.errors import StropError

Serve = Callable[[Connection], None]


class EngineError(Exception):
    """A process raised, crashed or hung; the message says which, for people."""


class Process:
    """A process that answers over a pipe, as its parent sees it."""

    def __init__(self, serve: Serve, timeout: float) -> None:
        self._timeout = timeout
        descriptor, log = tempfile.mkstemp(prefix="strop-bench-", suffix=".log")
        os.close(descriptor)
        self._log = Path(log)
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_run, args=(serve, far, log))
        self._process.start()
        far.close()

    def ask(self, *request: Any) -> Any:
        """Send a request and wait for its answer.

        Raises:
            EngineError: the process raised, crashed or did not answer in time.
            StropError: it raised one of strop's own.
        """
        try:
            self._pipe.send(request)
        except OSError as error:
            raise EngineError(self._ending()) from error
        return self.answer()

    def answer(self) -> Any:
        """Wait for the next answer; raises as ``ask`` does."""
        try:
            if not self._pipe.poll(self._timeout):
                self._process.kill()
                raise EngineError(f"gave no answer within {self._timeout:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise EngineError(self._ending()) from error
        if isinstance(answer, (EngineError, StropError)):
            raise answer
        return answer

    def stop(self) -> None:
        """End the process: close its pipe, and kill it if it does not end by itself."""
        self._pipe.close()
        self._process.join(timeout=FAREWELL)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._log.unlink(missing_ok=True)

    def _ending(self) -> str:
        """How a process that is gone ended, and the last line that it printed."""
        self._process.join(timeout=FAREWELL)
        said = self._log.read_text(errors="replace")
        return f"its process {ending(self._process.exitcode, said)}"


def _run(serve: Serve, pipe: Connection, log: str) -> None:
    """In the child: what it prints goes to the log, what it raises to the parent."""
    with Path(log).open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        serve(pipe)
    except EOFError:
        return  # the parent closed the pipe
    except (EngineError, StropError) as error:
        pipe.send(error)
    except Exception as error:
        said = str(error).strip().splitlines()
        pipe.send(EngineError(f"{type(error).__name__}: {said[0][:300] if said else ''}"))


@contextmanager
def started(serve: Serve, timeout: float) -> Iterator[Process]:
    """A process for the length of the block."""
    process = Process(serve, timeout)
    try:
        yield process
    finally:
        process.stop()


def isolated(function: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
    """Call a function in a process of its own; it must be found by its module and name.

    Raises:
        EngineError: the process raised, crashed or did not answer in ``timeout`` seconds.
        StropError: the function raised one of strop's own.
    """
    with started(partial(_call, function, arguments), timeout) as process:
        return process.answer()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection) -> None:
    pipe.send(function(*arguments))
