"""Engines: ways to run one model."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.bench.harness.subject import Feeds
from strop.compiler.util.numerics import Array

# Untimed runs at the start of every request: caches and thread pools wake up.
WARM_UP = 2


class Runner(ABC):
    """A loaded engine."""

    @abstractmethod
    def run(self, feeds: Feeds) -> list[Array]:
        """Run once; outputs in the model's order."""

    def times(self, feeds: Feeds, count: int) -> list[float]:
        """Run ``count`` times after a warm-up; seconds of each."""
        for _ in range(WARM_UP):
            self.run(feeds)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self.run(feeds)
            times.append(time.perf_counter() - start)
        return times


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
        return _onnx_bytes(self.path)


@dataclass(frozen=True)
class OpenVino(Engine):
    """An OpenVINO or ONNX file, compiled for latency, otherwise as OpenVINO chooses."""

    path: Path
    runtime = "openvino"

    def load(self) -> Runner:
        """Compile the model."""
        return _Compiled(self.path, self.threads)

    def size(self) -> int:
        """The file and the weights beside it."""
        if self.path.suffix == ".onnx":
            return _onnx_bytes(self.path)
        return sum(p.stat().st_size for p in self.path.parent.glob(f"{self.path.stem}.*"))


def _onnx_bytes(path: Path) -> int:
    """Of an ONNX file, and of the files of weights that it names, which others may share."""
    import onnx

    model = onnx.load_model(str(path), load_external_data=False)
    entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    files = {path, *(path.parent / one.value for one in entries if one.key == "location")}
    return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Eager(Engine):
    """The original module in eager torch, as its source makes it; of several, one program."""

    source: str
    program: str = ""
    runtime = "torch"

    def load(self) -> Runner:
        """Make the module."""
        return _Module(self, compiled=False)


@dataclass(frozen=True)
class Compile(Eager):
    """The original module under ``torch.compile``."""

    def load(self) -> Runner:
        """Make the module; it is compiled when it first sees inputs of a shape."""
        return _Module(self, compiled=True)


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
    def __init__(self, engine: Eager, compiled: bool) -> None:
        import torch

        from strop.bench.harness.subject import load_original

        if engine.threads != os.cpu_count():
            torch.set_num_threads(engine.threads)
        original = load_original(engine.source, engine.program)
        self.signature = original.signature
        self.module: Any = torch.compile(original.module) if compiled else original.module

    def run(self, feeds: Feeds) -> list[Array]:
        import torch

        from strop.compiler.frontend.original import output_leaves

        with torch.inference_mode():
            inputs = {n: torch.from_numpy(a) for n, a in feeds.items()}
            outputs = self.signature.call(self.module, inputs)
        return [t.numpy() for t in output_leaves(outputs).values()]
