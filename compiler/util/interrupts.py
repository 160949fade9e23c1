"""Signals that end strop: Ctrl-C (SIGINT), a supervisor's (SIGTERM), a closing terminal's (SIGHUP).

A signal raises ``Interrupted`` in the main thread, wherever that is. Some of the code that runs
there swallows exceptions (callbacks of native libraries, finalizers), so a signal is also
remembered: it is raised again where a stage begins and before anything is published, and decides
the exit code. A signal that is ignored when strop starts, as under ``nohup``, stays ignored.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal told the process to end; no ``Exception``, so that no handler goes on after it."""


@dataclass
class _State:
    """What was heard so far.

    Attributes:
        received: the last signal.
        holding: a signal is remembered only, not raised.
        settled: what the command is for is done.
    """

    received: signal.Signals | None = None
    holding: bool = False
    settled: bool = False


_state = _State()


def listen() -> None:
    """Hear signals from now on, in the main thread; forget those of an earlier command."""
    global _state
    _state = _State()
    for number in _HEARD:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _receive)
    sys.unraisablehook = _not_of_signals


def stop_listening() -> None:
    """Ignore signals from now on: the process ends, and they must not change its exit code."""
    for number in _HEARD:
        signal.signal(number, signal.SIG_IGN)


def _receive(number: int, _: object) -> None:
    _state.received = signal.Signals(number)
    if not _state.holding:
        raise Interrupted


def _not_of_signals(unraisable: sys.UnraisableHookArgs) -> None:
    """Print what Python cannot raise, but for signals: those are raised at the next check."""
    if unraisable.exc_type is not Interrupted:
        sys.__unraisablehook__(unraisable)


def check() -> None:
    """Raise a signal that was swallowed.

    Raises:
        Interrupted: there is one.
    """
    if _state.received is not None:
        raise Interrupted


@contextmanager
def held() -> Iterator[None]:
    """A block that is run as a whole or not at all: a signal takes effect before or after it.

    Raises:
        Interrupted: there was one.
    """
    check()
    _state.holding = True
    try:
        yield
    finally:
        _state.holding = False
    check()


def settle() -> None:
    """Say that what the command is for is done: a signal comes too late to undo it."""
    _state.settled = True


def unsettle() -> None:
    """Say that what was done is a part only: a signal comes in time to end the rest."""
    _state.settled = False


def received() -> signal.Signals | None:
    """The signal that told the process to end, if there was one."""
    return _state.received


def exit_code() -> int:
    """What to exit with after a signal: 130 after SIGINT; 0 where it came too late."""
    return 0 if _state.received is None or _state.settled else 128 + _state.received


def leave() -> NoReturn:
    """End the process after a signal, without running exit handlers of native libraries.

    A signal may have come while one was being loaded; its own clean-up then can crash.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code())
