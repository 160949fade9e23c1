"""Kernels compiled without a GPU, in processes of their own.

::

    variants = [variant_of(launch, configuration), ...]
    binaries = compile_variants(variants, SM90)

Triton's interpreter and its compiler cannot live in one process, and the process that asks never
loads Triton. The same variant gives the same bytes: nothing of this machine is in them, and of
Triton's settings in the environment only where its cache lies is heeded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from strop.kernels.architecture import Architecture
from strop.kernels.binary import Binary
from strop.kernels.expression import cdiv
from strop.kernels.variant import Variant

# A process takes seconds to start, so each gets at least as many variants to compile.
_LEAST_SHARE = 4
_HEEDED = ("TRITON_CACHE_DIR", "TRITON_HOME")
_SETTINGS = {"TRITON_DEFAULT_FP_FUSION": "1", "TRITON_DISABLE_LINE_INFO": "1"}
_Made = TypeVar("_Made")


class CompileError(Exception):
    """A kernel cannot be compiled; the message is a sentence that names it."""


def compile_variants(variants: Sequence[Variant], architecture: Architecture) -> list[Binary]:
    """Compile variants for an architecture, in their order; repeats come from Triton's cache.

    Raises:
        CompileError: some cannot be compiled, or need global memory of their own; all are told.
    """
    return succeeded(try_variants(variants, architecture))


def succeeded(tried: Iterable[_Made | CompileError]) -> list[_Made]:
    """What was made, where all of it was.

    Raises:
        CompileError: some was not; all errors are told.
    """
    made: list[_Made] = []
    errors: list[str] = []
    for one in tried:
        if isinstance(one, CompileError):
            errors.append(str(one))
        else:
            made.append(one)
    if errors:
        raise CompileError("\n".join(errors))
    return made


def try_variants(
    variants: Sequence[Variant], architecture: Architecture
) -> list[Binary | CompileError]:
    """As ``compile_variants``, with the error in the place of what cannot be compiled."""
    with Compilers() as compilers:
        return compilers.try_variants(variants, architecture)


class Compilers:
    """Processes that compile: started when they are needed, ended with the block."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._started = 0

    def __enter__(self) -> Compilers:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def try_variants(
        self, variants: Sequence[Variant], architecture: Architecture
    ) -> list[Binary | CompileError]:
        """Compile variants in their order; an error stands for what cannot be compiled."""

        def one(variant: Variant) -> Binary | CompileError:
            process = self._idle.get()
            try:
                return _compiled(process, variant, architecture)
            except CompileError as error:
                return error
            finally:
                self._idle.put(process if process.is_running else self._start())

        count = min(os.cpu_count() or 1, cdiv(len(variants), _LEAST_SHARE))
        for _ in range(self._started, count):
            self._idle.put(self._start())
        self._started = max(self._started, count)
        with ThreadPoolExecutor(max(count, 1)) as pool:
            return list(pool.map(one, variants))

    def _start(self) -> _Process:
        return self._running.enter_context(_process())


def _compiled(process: _Process, variant: Variant, architecture: Architecture) -> Binary:
    request = {"variant": variant.to_json(), "capability": architecture.capability}
    answer = process.ask(request)
    if "error" in answer:
        raise CompileError(f"{_what(variant, architecture)} cannot be compiled: {answer['error']}")
    binary = Binary.from_json(answer)
    if binary.scratch:
        raise CompileError(
            f"{_what(variant, architecture)} needs {binary.scratch} bytes of global memory beside "
            "its arguments, which plans do not provide"
        )
    return binary


def _what(variant: Variant, architecture: Architecture) -> str:
    constants = ", ".join(f"{name}={value}" for name, value in variant.constants)
    return f"kernel {variant.kernel} ({variant.signature}; {constants}) for {architecture.name}"


class _Process:
    """A process of ``strop.kernels.compiling``, as this one sees it."""

    def __init__(self, process: subprocess.Popen[str], said: Any) -> None:
        self._process = process
        self._said = said

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request; one that ended early is an error like any other."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": self._last_words()}
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def is_running(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return f"the compiler ended with code {code}; its last line: {' '.join(lines[-1:])}"


@contextmanager
def _process() -> Iterator[_Process]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TRITON_") or name in _HEEDED
    }
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            # -P: a folder of the user's with a name like Triton's is not taken for it.
            [sys.executable, "-P", "-m", "strop.kernels.compiling"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
            env=environment | _SETTINGS,
        )  # fmt: skip
        try:
            yield _Process(process, said)
        finally:
            process.kill()
            process.communicate()
