"""Run a program from an untrusted file in a process of its own.

Its operators only compute, but their arguments are untrusted: kernels may crash on them, even
where only types are computed, or compute without end. A forked process may take processor time
and memory that grow with the size of the program, and its crash does not end this process.
"""

from __future__ import annotations

import faulthandler
import io
import json
import math
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from strop.compiler.driver.bundle import Failure, fails
from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.ir.snapshots.writer import WEIGHTS
from strop.compiler.rewriting.passes import Pass
from strop.compiler.util.errors import RuntimeRefusedError, StropError, UsageError
from strop.compiler.util.forking import leave_garbage
from strop.compiler.util.limits import lower_limit
from strop.compiler.util.numerics import Array

# What any program may take, and how much more for each byte of its weights.
SECONDS, BYTES = 4.0, 4 << 30
SECONDS_PER_BYTE, BYTES_PER_BYTE = 1 / (4 << 20), 16
# The sizes come from an untrusted folder.
MOST_WEIGHTS = 1 << 40
# Types take longer to compute for a byte of a snapshot's text than values for a byte of weights.
TYPED_PER_BYTE = 128
CANNOT_RUN = "the program cannot be run"
# Another process may have the processor most of the time.
PATIENCE = 15
DONE, FAILED, REFUSED = b"+", b"-", b"!"


def arrays_apart(compute: Callable[[], Mapping[str, Array]], weights: int) -> dict[str, Array]:
    """Arrays by name, computed apart.

    Raises:
        UsageError: as ``apart``.
    """

    def packed() -> bytes:
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **{f"/{n}": a for n, a in compute().items()})
        return stream.getvalue()

    with np.load(io.BytesIO(apart(packed, weights)), allow_pickle=False) as found:
        return {name.removeprefix("/"): found[name] for name in found.files}


def apart(compute: Callable[[], bytes], weights: int, cannot: str = CANNOT_RUN) -> bytes:
    """What a function returns, called in a forked process on one processor.

    Args:
        compute: it may change nothing that the caller looks at.
        weights: their bytes, by which time and memory are measured out.
        cannot: the beginning of the sentence for what goes wrong.

    Raises:
        UsageError: it raised something, crashed, or took more time or memory than it may.
        RuntimeRefusedError: it raised that.
    """
    weights = min(weights, MOST_WEIGHTS)
    seconds = math.ceil(SECONDS + SECONDS_PER_BYTE * weights)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(near)
        _limit(seconds, BYTES + BYTES_PER_BYTE * weights)
        _answer(compute, far)
    os.close(far)
    said = _listen(near, child, seconds * PATIENCE)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise UsageError(f"{cannot}: {_ending(os.WTERMSIG(status), seconds)}")
    if said[:1] == REFUSED:
        raise RuntimeRefusedError(said[1:].decode(errors="replace"))
    if said[:1] != DONE:
        raise UsageError(f"{cannot}: {said[1:].decode(errors='replace')}")
    return said[1:]


def fails_apart(run: Pass, program: Program) -> Failure | None:
    """How a pass fails on a program, run apart; None if it does not.

    Raises:
        UsageError: as ``apart``.
    """

    def asked() -> bytes:
        failure = fails(run, program)
        return json.dumps(None if failure is None else vars(failure)).encode()

    found = json.loads(apart(asked, weight_bytes(program)))
    return None if found is None else Failure(**found)


def load_apart(path: Path) -> Program:
    """Read an untrusted snapshot, after a process of its own has read it without harm.

    Raises:
        UsageError: as ``load_program`` and ``apart``.
    """

    def complaint() -> bytes:
        try:
            load_program(path)
        except UsageError as error:
            return os.fsencode(str(error))
        return b""

    import_module("torch._dynamo.source")  # takes a second, and both processes need it
    said = apart(complaint, _reading_bytes(path), f"the snapshot {path} cannot be read")
    if said:
        raise UsageError(os.fsdecode(said))
    return load_program(path)


def _reading_bytes(path: Path) -> int:
    """How many bytes of weights a snapshot counts for while it is read."""
    text = path.stat().st_size if path.is_file() else 0
    weights = (path.parent / WEIGHTS).glob("*")
    return text * TYPED_PER_BYTE + sum(file.lstat().st_size for file in weights)


def weight_bytes(program: Program) -> int:
    """Bytes of a program's weights."""
    return sum(t.nbytes for t in program.weights.values())


def _limit(seconds: int, more_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_AS, most, most),
    ):
        lower_limit(kind, soft, hard)


def _answer(compute: Callable[[], bytes], pipe: int) -> None:
    """In the child: send the result, and exit without running the parent's exit handlers."""
    try:
        faulthandler.disable()  # the parent reports how it ended
        leave_garbage()
        # Threads that the caller has are not in this process, and would be waited for.
        torch.set_num_threads(1)
        answer = DONE + compute()
    except BaseException as error:  # whatever it is: it is the answer
        said = str(error).strip().splitlines()
        kind = "" if isinstance(error, StropError) else f"{type(error).__name__}: "
        how = REFUSED if isinstance(error, RuntimeRefusedError) else FAILED
        answer = how + f"{kind}{said[0] if said else ''}".encode(errors="replace")
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with os.fdopen(pipe, "wb") as stream:
            stream.write(answer)
    finally:
        os._exit(0)


def _listen(pipe: int, child: int, seconds: float) -> bytes:
    """All that the child sends; the child is ended if it sends nothing for too long."""
    said = bytearray()
    with os.fdopen(pipe, "rb", buffering=0) as stream:
        while True:
            ready, _, _ = select.select([stream], [], [], seconds)
            if not ready:
                os.kill(child, signal.SIGKILL)
                return bytes(said)
            part = stream.read(1 << 20)
            if not part:
                return bytes(said)
            said += part


def _ending(number: int, seconds: int) -> str:
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return f"it took more than {seconds} s or more memory than there is"
    return f"it crashes ({signal.Signals(number).name})"
