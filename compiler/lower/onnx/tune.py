"""Measure on this machine which emitter is fastest, where an operator has several.

Each variant is lowered as a chain of one operator and timed in a default session; variants take
turns, so that a machine that slows down slows all of them down.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.contract import DTYPE_NAMES, Contract, TensorSpec
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices, Milliseconds
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.lower.onnx.subjects import SUBJECTS, Subject
from strop.compiler.lower.onnx.table import TABLE
from strop.compiler.lower.onnx.write import write_model
from strop.compiler.targets.target import OnnxTarget
from strop.compiler.util.cache import cache_root
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.reading import read_text
from strop.compiler.util.files.writing import write_whole

Runner = Callable[[], object]

# Batch and sequence: one token, a short sentence, a paragraph, a batch of them.
SHAPES: tuple[tuple[int, int], ...] = ((1, 1), (1, 16), (1, 128), (8, 128))
# Applications of the operator in one graph: a session's own overhead is shared among them.
CHAIN = 8
ROUNDS = 5
# Seconds that one variant runs in one round, and the fewest runs in it.
ROUND_SECONDS, LEAST_RUNS = 0.02, 2


def tuned(target: OnnxTarget, progress: Callable[[str], None] = lambda what: None) -> Choices:
    """The choices measured on this machine, from the cache where they were measured before.

    The cache is one file per CPU model, number of cores and onnxruntime version.

    Raises:
        UsageError: the target's device is not on this machine.
    """
    from strop.compiler.targets.onnxruntime.providers import started

    if target.providers[0] not in started(target.providers):
        raise UsageError(f"nothing can be measured for {target.name} here: no device was found")
    path = cache_path(target.name)
    # One that is missing or damaged is measured again.
    with contextlib.suppress(UsageError):
        cached = Choices.from_json(read_text(path, "the cache"), str(path))
        if _same_questions(cached.milliseconds):
            return cached
    choices = Choices(measure(target, progress))
    # A cache that cannot be written costs time at the next build, nothing else.
    with contextlib.suppress(OSError, UsageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(describe_machine() | {"milliseconds": choices.milliseconds}))
    return choices


def cache_path(target: str) -> Path:
    """Where the choices measured on this machine are kept."""
    machine = describe_machine()
    name = f"{target} {machine['cpu']} {machine['cores']} ort {machine['onnxruntime']}"
    return cache_root() / "tuned" / (re.sub(r"[^\w.]+", "-", name).lower() + ".json")


def describe_machine() -> dict[str, Any]:
    """What a measurement depends on: the CPU, its cores, the runtime."""
    import onnxruntime

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "onnxruntime": onnxruntime.__version__,
    }


def cpu_model() -> str:
    """The CPU's name, and what tells it from others of that name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        text = ""
    return named_cpu(text) or platform.processor() or platform.machine()


def named_cpu(text: str) -> str:
    """Read ``/proc/cpuinfo``: virtual machines give several generations one name."""
    first = text.partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in first)
    known = {key.strip(): value.strip() for key, _, value in pairs}
    numbers = [f"{key.split()[-1]} {known[key]}" for key in ("cpu family", "model") if key in known]
    name = known.get("model name", "")
    return f"{name} ({', '.join(numbers)})" if name and numbers else name


def _same_questions(cached: Milliseconds) -> bool:
    """Whether a cache answers for exactly today's operators and variants."""
    asked = {op_name(s.target): set(_variants(s)) for s in SUBJECTS}
    return asked == {name: set(variants) for name, variants in cached.items()}


def measure(
    target: OnnxTarget,
    progress: Callable[[str], None] = lambda what: None,
    subjects: Sequence[Subject] = SUBJECTS,
    shapes: Sequence[tuple[int, int]] = SHAPES,
) -> Milliseconds:
    """Milliseconds per operator, variant and shape (``batch x seq x width``)."""
    found: Milliseconds = {}
    for subject in subjects:
        name = op_name(subject.target)
        found[name] = {variant: {} for variant in _variants(subject)}
        for width in subject.widths:
            for batch, seq in shapes:
                label = f"{batch}x{seq}x{width}"
                progress(f"{name} {label}")
                for variant, ms in _measure_one(subject, (batch, seq, width), target).items():
                    found[name][variant][label] = float(f"{ms:.3g}")
    return found


def _variants(subject: Subject) -> list[str]:
    from strop.compiler.lower.onnx import rules  # noqa: F401  (fills the table)

    return list(TABLE[subject.target])


def _measure_one(
    subject: Subject, shape: tuple[int, int, int], target: OnnxTarget
) -> dict[str, float]:
    program = chain_program(subject, shape)
    runners = {v: _runner(program, subject, v, target) for v in _variants(subject)}
    return {v: ms / CHAIN for v, ms in interleaved(runners).items()}


def chain_program(subject: Subject, shape: tuple[int, int, int]) -> Program:
    """A program that applies one operator ``CHAIN`` times, each to the result of the last."""
    mode = FakeTensorMode()
    graph = fx.Graph()
    values = []
    for i, sizes in enumerate(subject.inputs(*shape)):
        values.append(graph.placeholder(f"x{i}"))
        values[-1].meta["val"] = mode.from_tensor(torch.empty(sizes))
    specs = tuple(_spec(n) for n in values)
    output = graph.output(tuple(values))
    program = Program(graph, {}, Contract((), (), ()))
    build = Builder(program, output, "tune")
    for _ in range(CHAIN):
        values = subject.step(build, values)
    results = tuple(v for v in values if v.op != "placeholder")
    output.args = (results,)
    program.contract = Contract(specs, tuple(_spec(n) for n in results), ())
    return program


def _spec(node: Node) -> TensorSpec:
    value = node.meta["val"]
    return TensorSpec(node.name, DTYPE_NAMES[value.dtype], tuple(int(s) for s in value.shape))


def _runner(program: Program, subject: Subject, variant: str, target: OnnxTarget) -> Runner:
    """A default session on the program, lowered with one variant of the operator."""
    forced = Choices({op_name(subject.target): {variant: {"": 0.0}}})
    model = lower_to_onnx(program, target, forced)
    rng = np.random.default_rng(0)
    feeds = {
        spec.name: rng.normal(size=[int(s) for s in spec.shape]).astype(np.float32)
        for spec in program.contract.inputs
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(model, path)
        return session_runner(path, feeds, target)


def session_runner(path: Path, feeds: Mapping[str, Any], target: OnnxTarget) -> Runner:
    """A default session on a file, with its inputs bound once: nothing is copied in a run."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=list(target.providers))
    binding = session.io_binding()
    taken = {i.name for i in session.get_inputs()}
    for name, array in feeds.items():
        if name in taken:
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def interleaved(runners: Mapping[str, Runner], rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of each runner: the least of its rounds' medians.

    The least, since a neighbour on the machine can only add to a time.
    """
    counts = {name: _runs(run) for name, run in runners.items()}
    medians: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            medians[name].append(statistics.median(seconds(run, counts[name])))
    return {name: 1000 * min(times) for name, times in medians.items()}


def _runs(run: Runner) -> int:
    """How often a runner fits into one round, after a warm-up."""
    seconds(run, 2)
    return max(LEAST_RUNS, int(ROUND_SECONDS / max(min(seconds(run, 3)), 1e-6)))


def seconds(run: Runner, count: int) -> list[float]:
    """Wall time of each of ``count`` runs."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times
