"""The canary: a small model whose time shows whether the machine is disturbed.

A virtual machine's cores may be moved apart at any moment, to where they share no cache. Threads
then hand over their work so slowly that small operators take twice their time, while large
products keep theirs: ratios between engines change by half, and neither load nor stolen time shows
it. A chain of small operators on all threads does.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from strop.bench.harness.engines import OnnxFile
from strop.bench.harness.workers import Worker
from strop.bench.processes.spawned import EngineError
from strop.bench.records.record import is_calm
from strop.compiler.util.errors import RuntimeRefusedError

# Rows, width and number of products: each is so small that a slow hand-over shows.
ROWS, WIDTH, DEPTH = 16, 384, 24
# Runs that are timed together; their median counts.
RUNS = 15
# Seconds after which a canary that does not answer is given up.
TIMEOUT = 60.0
# Seconds between looks while the machine is disturbed.
PAUSE = 0.25


class Patience:
    """Seconds by which a bout may become longer, waiting for a calm machine."""

    def __init__(self, seconds: float) -> None:
        self._kept = seconds
        self._since: float | None = None

    @property
    def left(self) -> float:
        """Seconds that are left now."""
        return self._kept - (0.0 if self._since is None else time.monotonic() - self._since)

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Count the time of the block; a block within another is not counted twice."""
        if self._since is not None:
            yield
            return
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._kept, self._since = self.left, None


class Best:
    """The shortest time of the canary so far, in milliseconds."""

    def __init__(self) -> None:
        self.milliseconds = float("inf")

    def see(self, milliseconds: float) -> None:
        """Enter one time of the canary."""
        self.milliseconds = min(self.milliseconds, milliseconds)

    def calm(self, milliseconds: float) -> bool:
        """Whether the machine was calm when the canary took that long."""
        return is_calm(milliseconds, self.milliseconds)


@dataclass(frozen=True)
class Canary:
    """Tells during one bout whether the machine is calm.

    Attributes:
        times: runs the canary that many times and gives the seconds of each.
        best: shared by all bouts on as many threads.
        patience: how long it may wait for a calm machine.
    """

    times: Callable[[int], list[float]]
    best: Best
    patience: Patience

    def look(self) -> float:
        """Time the canary now; the median in milliseconds."""
        taken = 1000 * statistics.median(self.times(RUNS))
        self.best.see(taken)
        return taken

    def settle(self) -> float:
        """Wait until the machine is calm or patience is used up; the last time in milliseconds."""
        taken = self.look()
        while not self.best.calm(taken) and self.patience.left > 0:
            with self.patience.spent():
                time.sleep(PAUSE)
                taken = self.look()
        return taken


@contextmanager
def canary(threads: int, best: Best, patience: float) -> Iterator[Canary]:
    """A canary in a process of its own, for the length of the block.

    Raises:
        RuntimeRefusedError: it does not run.
    """
    with tempfile.TemporaryDirectory(prefix="strop-canary-") as folder:
        path = Path(folder) / "canary.onnx"
        path.write_bytes(_model())
        feeds = {"": {"x": np.ones((ROWS, WIDTH), np.float32)}}
        with _alive():
            worker = Worker(OnnxFile("canary", threads, path), feeds, TIMEOUT)

        def times(runs: int) -> list[float]:
            with _alive():
                return worker.times("", runs)

        try:
            yield Canary(times, best, Patience(patience))
        finally:
            worker.stop()


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise RuntimeRefusedError(
            f"the small model that tells whether the machine is disturbed does not run: {error}"
        ) from error


def _model() -> bytes:
    """``DEPTH`` times a product and a norm, float32 ``[ROWS, WIDTH]``, as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    nodes = []
    for i in range(DEPTH):
        nodes.append(helper.make_node("MatMul", [f"n{i - 1}" if i else "x", "w"], [f"m{i}"]))
        nodes.append(helper.make_node("LayerNormalization", [f"m{i}", "scale"], [f"n{i}"]))
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [ROWS, WIDTH])
        for name in ("x", f"n{DEPTH - 1}")
    ]
    weights = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.ones(WIDTH, np.float32), "scale"),
    ]
    graph = helper.make_graph(nodes, "canary", value[:1], value[1:], weights)
    opset = [helper.make_opsetid("", 21)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return model
