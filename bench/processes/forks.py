"""Functions run in forked copies of this process, several at a time, each under a limit.

A copy starts with everything that this process has imported, so it starts at once.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from strop.compiler.util.forking import leave_garbage

_MEMORY = 8 << 30  # bytes: a mutant may ask for far more than the program ever would
_PATIENCE = 5.0  # other programs may be at work on the same cores
_context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class ForkedCall:
    """What one copy does.

    Attributes:
        function: called without arguments; what it returns must be picklable.
        limit: CPU seconds after which the copy is ended; by the clock it may take five times that.
        about: handed back with the result.
    """

    function: Callable[[], Any]
    limit: float
    about: Any


@dataclass(frozen=True)
class Ended:
    """How a call ended.

    Attributes:
        how: "returned", "raised", "timeout" or "crashed".
        value: what it returned, or the traceback of what it raised.
    """

    about: Any
    how: str
    value: Any
    seconds: float


@dataclass(frozen=True)
class _Running:
    call: ForkedCall
    process: Any
    start: float

    @property
    def deadline(self) -> float:
        return self.start + _PATIENCE * self.call.limit


def forked(calls: Iterable[ForkedCall], at_once: int) -> Iterator[Ended]:
    """Run calls, and yield each as it ends."""
    running: dict[Connection, _Running] = {}
    try:
        yield from _all(iter(calls), at_once, running)
    finally:
        for one in running.values():
            _kill_group(one.process.pid)


def _all(
    waiting: Iterator[ForkedCall], at_once: int, running: dict[Connection, _Running]
) -> Iterator[Ended]:
    while True:
        while len(running) < at_once and (call := next(waiting, None)):
            pipe, started = _start(call)
            running[pipe] = started
        if not running:
            return
        nearest = min(r.deadline for r in running.values())
        ready = set(wait(list(running), timeout=max(0.0, nearest - time.monotonic())))
        for pipe in list(running):
            if pipe in ready or running[pipe].deadline <= time.monotonic():
                yield _end(running.pop(pipe), pipe, answered=pipe in ready)


def _start(call: ForkedCall) -> tuple[Connection, _Running]:
    pipe, far = _context.Pipe(duplex=False)
    process = _context.Process(target=_run, args=(call, far))
    process.start()
    far.close()
    return pipe, _Running(call, process, time.monotonic())


def _run(call: ForkedCall, pipe: Connection) -> None:
    os.setsid()
    leave_garbage()
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    spent = math.ceil(time.process_time() + call.limit)
    resource.setrlimit(resource.RLIMIT_CPU, (spent, spent + 1))
    with Path(os.devnull).open("w") as silence:
        os.dup2(silence.fileno(), 1)
        os.dup2(silence.fileno(), 2)
    try:
        pipe.send(("returned", call.function()))
    except Exception:  # of whatever kind: the parent says where it came from
        pipe.send(("raised", traceback.format_exc()))
    pipe.close()
    # Threads that a test left behind must not keep the copy alive.
    os._exit(0)


def _end(running: _Running, pipe: Connection, answered: bool) -> Ended:
    how, value = "timeout", None
    if answered:
        try:
            how, value = pipe.recv()
        except EOFError:
            how = "crashed"
    pipe.close()
    _kill_group(running.process.pid)
    running.process.join()
    if running.process.exitcode == -signal.SIGXCPU:
        how = "timeout"
    return Ended(running.call.about, how, value, time.monotonic() - running.start)


def _kill_group(leader: int) -> None:
    """End the copy and every process that it started."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing of it is left
