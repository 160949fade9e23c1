"""Engines: ways to run one model, each loaded in a process of its own and asked over a pipe."""

from __future__ import annotations

import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
# Untimed runs at the start of every request: caches and thread pools wake up.
WARM_UP = 2


class Runner(ABC):
    """A loaded engine."""

    @abstractmethod
    def run(self, feeds: Feeds) -> list[Array]:
        """Run once; outputs in the model's order."""


@dataclass(frozen=True)
class Engine(ABC):
    """What to load, and what to call it; travels to the worker process.

    Attributes:
        name: for tables.
        threads: cores to use; the runtime's own default where that is all of them.
    """

    name: str
    threads: int

    @abstractmethod
    def load(self) -> Runner:
        """Load the engine into this process."""


@dataclass(frozen=True)
class OnnxFile(Engine):
    """An ONNX file in a default ONNX Runtime session."""

    path: Path

    def load(self) -> Runner:
        """Open the session."""
        return _Session(self.path, self.threads)


@dataclass(frozen=True)
class Eager(Engine):
    """The original module in eager torch; ``factory`` is ``package.module:function``."""

    factory: str

    def load(self) -> Runner:
        """Make the module."""
        return _Module(self.factory, self.threads)


class _Session(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        if threads != os.cpu_count():
            options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(str(path), options, providers=providers)
        self.names = {i.name for i in self.session.get_inputs()}

    def run(self, feeds: Feeds) -> list[Array]:
        result: list[Array] = self.session.run(
            None, {n: a for n, a in feeds.items() if n in self.names}
        )
        return result


class _Module(Runner):
    def __init__(self, factory: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        module, _, function = factory.partition(":")
        self.module = getattr(import_module(module), function)()

    def run(self, feeds: Feeds) -> list[Array]:
        import torch

        from strop.compiler.original import output_leaves

        with torch.inference_mode():
            outputs = self.module(**{n: torch.from_numpy(a) for n, a in feeds.items()})
        return [t.numpy() for t in output_leaves(outputs).values()]


class Worker:
    """The near end of one engine's process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(engine, far), daemon=True)
        self._process.start()
        far.close()
        self._receive()

    def outputs(self, feeds: Feeds) -> list[Array]:
        """Run once and return the outputs."""
        result: list[Array] = self._ask(("outputs", feeds, 1))
        return result

    def times(self, feeds: Feeds, count: int) -> list[float]:
        """Run ``count`` times after a warm-up; seconds of each."""
        result: list[float] = self._ask(("times", feeds, count))
        return result

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()

    def _ask(self, request: Any) -> Any:
        self._pipe.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"the process of engine '{self.engine.name}' ended") from error
        if isinstance(answer, Exception):
            raise RuntimeError(f"engine '{self.engine.name}': {answer}") from answer
        return answer


@contextmanager
def workers(engines: Sequence[Engine]) -> Iterator[dict[str, Worker]]:
    """A process for each engine, ended at the end of the block."""
    started: dict[str, Worker] = {}
    try:
        for engine in engines:
            started[engine.name] = Worker(engine)
        yield started
    finally:
        for worker in started.values():
            worker.stop()


def _serve(engine: Engine, pipe: Connection) -> None:
    """The far end: load, then answer until the near end hangs up."""
    try:
        runner = engine.load()
        pipe.send("ready")
        while True:
            kind, feeds, count = pipe.recv()
            pipe.send(runner.run(feeds) if kind == "outputs" else _times(runner, feeds, count))
    except EOFError:
        return
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _times(runner: Runner, feeds: Feeds, count: int) -> list[float]:
    for _ in range(WARM_UP):
        runner.run(feeds)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        runner.run(feeds)
        times.append(time.perf_counter() - start)
    return times
