"""Workers: each runs one engine in a process of its own, and is asked over a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection

from strop.bench.harness.engines import Engine
from strop.bench.harness.subject import Feeds
from strop.bench.processes.memory import own_peak
from strop.bench.processes.spawned import EngineError, Process
from strop.compiler.util.numerics import Array


class Worker:
    """One engine's process, as its parent sees it.

    Attributes:
        engine: what it runs.
        load_ms: milliseconds from the imported runtime to the loaded engine.
    """

    def __init__(self, engine: Engine, feeds: Mapping[str, Feeds], timeout: float) -> None:
        self.engine = engine
        self._process = Process(partial(_serve, engine), timeout)
        try:
            self.load_ms: float = self._process.ask(dict(feeds))
        except BaseException:
            self.stop()
            raise

    def outputs(self, case: str) -> list[Array]:
        """Run once on the inputs of a case and return the outputs."""
        result: list[Array] = self._process.ask("outputs", case, 1)
        return result

    def times(self, case: str, count: int) -> list[float]:
        """Run about ``count`` times; seconds of each, as ``Runner.times``."""
        result: list[float] = self._process.ask("times", case, count)
        return result

    def peak_memory(self) -> int:
        """The most memory that the process has had so far, in bytes, its runtime included."""
        result: int = self._process.ask("memory", "", 0)
        return result

    def stop(self) -> None:
        """End the process."""
        self._process.stop()


@contextmanager
def workers(
    engines: Sequence[Engine], feeds: Mapping[str, Feeds], timeout: float = 300.0
) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """A process for each engine, ended at the end of the block.

    Yields:
        the workers by name, and why the engines that did not load did not.
    """
    with ExitStack() as stack:
        running, refused = {}, {}
        for engine in engines:
            try:
                running[engine.name] = Worker(engine, feeds, timeout)
                stack.callback(running[engine.name].stop)
            except EngineError as error:
                refused[engine.name] = f"does not load: {error}"
        yield running, refused


def _serve(engine: Engine, pipe: Connection) -> None:
    """In the child: load, then answer until the parent closes the pipe."""
    (feeds,) = pipe.recv()
    import_module(engine.runtime)
    start = time.perf_counter()
    runner = engine.load()
    pipe.send(1000 * (time.perf_counter() - start))
    while True:
        kind, case, count = pipe.recv()
        if kind == "memory":
            pipe.send(own_peak())
        elif kind == "outputs":
            pipe.send(runner.run(feeds[case]))
        else:
            pipe.send(runner.times(feeds[case], count))
