"""A separate Python process that answers over a pipe; when it crashes, this one goes on.

It is started anew instead of forked, and imports nothing but what it serves: not torch, and not
the user's own main module, which ``multiprocessing`` would run once more.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import BinaryIO

from strop.compiler.util.limits import lower_limit

# Last of all paths come those of the user's: their modules may have names of Python's own.
_BOOT = """
import json, sys
sys.path += [path for path in json.loads(sys.argv[1]) if path not in sys.path]
from strop.compiler.util.child import main
main()
"""
_PR_SET_PDEATHSIG = 1
# Seconds that a process whose pipe is closed gets to end, before it is made to.
FAREWELL = 10.0


class Child:
    """The parent's side of such a process.

    Attributes:
        pipe: where it is asked and answers.
    """

    def __init__(self, serve: str, most_bytes: int | None) -> None:
        """Start it.

        Args:
            serve: ``module:function``, called there with the child's end of the pipe. What the
                process prints is kept, for the message where it ends early.
            most_bytes: of memory; None for no limit but the system's.

        Raises:
            OSError: there is no room for one more process.
        """
        self._said: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  (closed by ``end``)
        self.pipe, far = Pipe()
        with far:
            given = [json.dumps(sys.path), serve, str(far.fileno()), str(most_bytes or 0)]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, *given],
                stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
                # Signals of a terminal are for the process that was started there.
                pass_fds=[far.fileno()], start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        """End it, whatever it does; it has nothing that could be lost."""
        self._process.kill()
        self._process.wait()
        self.pipe.close()
        self._said.close()

    def last_words(self) -> str:
        """How a process that answers no more ended, and what it said last."""
        try:
            code: int | None = self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            code = None
        self._said.seek(0)
        return ending(code, self._said.read().decode(errors="replace"))


def ending(code: int | None, said: str) -> str:
    """How a process ended, and its last line.

    ``code`` is what it exited with, minus the number of a signal, or None while it still runs.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = f"; its last output: {lines[-1][:200]}" if lines else ""
    if code is None:
        return f"hung up and did not end{last}"
    if code >= 0:
        return f"exited with code {code}{last}"
    hint = " (out of memory, perhaps)" if -code == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{hint}{last}"


def main() -> None:
    """In the child: apply the limits, and serve requests until the parent closes the connection."""
    serve, descriptor, most_bytes = sys.argv[2:]
    _end_with_the_parent()
    lower_limit(resource.RLIMIT_CORE, 0)
    if int(most_bytes):
        # Not the address space: threads and mapped files reserve much of it that they never use.
        lower_limit(resource.RLIMIT_DATA, int(most_bytes))
    module, _, function = serve.partition(":")
    # It ends when the parent closes the pipe.
    with Connection(int(descriptor)) as pipe, suppress(EOFError, BrokenPipeError):
        getattr(import_module(module), function)(pipe)


def _end_with_the_parent() -> None:
    """Of Linux: be killed when the parent is, and be the first to be where memory runs out."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # a container may not allow it, and nothing depends on it
