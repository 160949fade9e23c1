"""Engines: ways to run one model, each loaded in a process of its own and asked over a pipe."""

from __future__ import annotations

import os
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from strop.bench.harness.subject import Feeds
from strop.bench.processes.spawned import EngineError, Process
from strop.compiler.util.numerics import Array

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

    @property
    @abstractmethod
    def runtime(self) -> str:
        """The package to import before the clock of the load time starts."""

    @abstractmethod
    def load(self) -> Runner:
        """Load the engine into this process."""

    def size(self) -> int | None:
        """Bytes of its files; None where it has none of its own."""
        return None


@dataclass(frozen=True)
class OnnxFile(Engine):
    """An ONNX file in a default ONNX Runtime session."""

    path: Path
    runtime = "onnxruntime"

    def load(self) -> Runner:
        """Open the session."""
        return _Session(self.path, self.threads)

    def size(self) -> int:
        """The file and the weights beside it."""
        return sum(p.stat().st_size for p in self.path.parent.glob(f"{self.path.name}*"))


@dataclass(frozen=True)
class OpenVino(Engine):
    """An OpenVINO file, compiled for latency, otherwise as OpenVINO chooses."""

    path: Path
    runtime = "openvino"

    def load(self) -> Runner:
        """Compile the model."""
        return _Compiled(self.path, self.threads)

    def size(self) -> int:
        """The file and the weights beside it."""
        return sum(self.path.with_suffix(s).stat().st_size for s in (".xml", ".bin"))


@dataclass(frozen=True)
class Eager(Engine):
    """The original module in eager torch, as its source makes it."""

    source: str
    runtime = "torch"

    def load(self) -> Runner:
        """Make the module."""
        return _Module(self.source, self.threads, compiled=False)


@dataclass(frozen=True)
class Compile(Eager):
    """The original module under ``torch.compile``."""

    def load(self) -> Runner:
        """Make the module; it is compiled when it first sees inputs of a shape."""
        return _Module(self.source, self.threads, compiled=True)


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


class _Compiled(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        settings = {"PERFORMANCE_HINT": "LATENCY"}
        if threads != os.cpu_count():
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        self.model = openvino.Core().compile_model(str(path), "CPU", settings)
        self.names = {name for port in self.model.inputs for name in port.get_names()}

    def run(self, feeds: Feeds) -> list[Array]:
        results = self.model({n: a for n, a in feeds.items() if n in self.names})
        return [results[port] for port in self.model.outputs]


class _Module(Runner):
    def __init__(self, source: str, threads: int, compiled: bool) -> None:
        import torch

        from strop.bench.harness.subject import load_original

        if threads != os.cpu_count():
            torch.set_num_threads(threads)
        original = load_original(source)
        self.signature = original.signature
        self.module: Any = torch.compile(original.module) if compiled else original.module

    def run(self, feeds: Feeds) -> list[Array]:
        import torch

        from strop.compiler.frontend.original import output_leaves

        with torch.inference_mode():
            inputs = {n: torch.from_numpy(a) for n, a in feeds.items()}
            outputs = self.signature.call(self.module, inputs)
        return [t.numpy() for t in output_leaves(outputs).values()]


class Worker:
    """The near end of one engine's process.

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
        """Run ``count`` times after a warm-up; seconds of each."""
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
    """The far end: load, then answer until the near end hangs up."""
    (feeds,) = pipe.recv()
    import_module(engine.runtime)
    start = time.perf_counter()
    runner = engine.load()
    pipe.send(1000 * (time.perf_counter() - start))
    while True:
        kind, case, count = pipe.recv()
        if kind == "memory":
            pipe.send(_peak_memory())
        elif kind == "outputs":
            pipe.send(runner.run(feeds[case]))
        else:
            pipe.send(_times(runner, feeds[case], count))


def _times(runner: Runner, feeds: Feeds, count: int) -> list[float]:
    for _ in range(WARM_UP):
        runner.run(feeds)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        runner.run(feeds)
        times.append(time.perf_counter() - start)
    return times


def _peak_memory() -> int:
    """Of this process, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # macOS; there the figure counts what the parent had when it began, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(s.split()[1]) * 1024 for s in status.splitlines() if s.startswith("VmHWM"))
