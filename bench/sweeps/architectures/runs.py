"""The outcome of a type of ``transformers``, built by strop or converted by ``torch.onnx``."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import onnxruntime as ort
import torch

from strop.bench.harness.exports import named_shapes
from strop.bench.processes.spawned import EngineError, started
from strop.bench.sweeps.architectures.types import model_of
from strop.compiler import Model, build
from strop.compiler.check.comparison import compare
from strop.compiler.check.limits import hold_to_budget
from strop.compiler.frontend.cases import make_cases
from strop.compiler.frontend.inputs import Signature, read_inputs
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.targets.onnxruntime import RUNTIME
from strop.compiler.targets.target import CPU, ONNX_FILE
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import BudgetError, RuntimeRefusedError, StropError
from strop.compiler.util.quiet import quiet_torch

RECIPE = "cpu-fp32"
FATAL = 4
# Types that one process builds: torch, ONNX and their caches grow with every build.
TOGETHER = 20

Who = Literal["strop", "torch.onnx"]
Kind = Literal["ok", "wrong", "refused", "failed"]


@dataclass(frozen=True)
class ArchitectureOutcome:
    """The outcome of one type.

    Attributes:
        kind: "wrong" where the file gives other numbers than the module, or does not run, at some
            size within the ranges; "refused" by an error that is meant for users; "failed" by any
            other, by the end of the process or of its time.
        reason: the message, in one line; empty for what is ok.
        seconds: how long it took.
    """

    kind: Kind
    reason: str = ""
    seconds: float = 0.0


def measure(
    names: Sequence[str], who: Who, limit: float
) -> Iterator[tuple[str, ArchitectureOutcome]]:
    """The outcome of each type, in order; ``limit`` seconds for one."""
    left = list(names)
    while left:
        with started(_serve, limit) as process:
            for _ in range(min(TOGETHER, len(left))):
                name = left.pop(0)
                try:
                    yield name, process.ask(name, who)
                except EngineError as error:  # the process is gone: the next type gets a new one
                    yield name, ArchitectureOutcome("failed", str(error))
                    break


def _serve(pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(FATAL)
    torch.set_num_threads(1)
    while True:
        pipe.send(outcome(*pipe.recv()))


def outcome(name: str, who: Who) -> ArchitectureOutcome:
    """Make a type's model, and build or convert it; any exception becomes the reason."""
    begun = time.perf_counter()
    kind, reason = _tried(name, who)
    said = _without_folders(" ".join(reason.split()))
    return ArchitectureOutcome(kind, said, round(time.perf_counter() - begun, 1))


def _without_folders(text: str) -> str:
    """Files of packages by their names within the packages: a record holds no machine's paths."""
    return re.sub(r"/\S*/site-packages/", "", text)


def _tried(name: str, who: Who) -> tuple[Kind, str]:
    try:
        model = model_of(name)
        if who == "strop":
            build_it(model)
        else:
            convert_it(model)
    except (BudgetError, RuntimeRefusedError) as error:
        return "wrong", str(error)
    except StropError as error:
        return "refused", str(error)
    except Exception as error:  # a fault of strop's, or whatever the peer and its runtime raise
        return "failed", f"{type(error).__name__}: {_without_markup(str(error))}"
    return "ok", ""


def _without_markup(text: str) -> str:
    """Without the colours of a terminal, which errors of ``torch.onnx`` contain."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def build_it(model: Model) -> None:
    """Build with strop: the file is compared with the original at several sizes."""
    with tempfile.TemporaryDirectory() as folder:
        build(model, Path(folder) / "out", recipe=RECIPE, instruments="off")


def convert_it(model: Model) -> None:
    """Convert by ``torch.onnx`` with the same dims, and check the file by strop's budget.

    Raises:
        BudgetError: the file gives other numbers than the module at some size.
        RuntimeRefusedError: it gives other shapes or dtypes, or does not run.
        Exception: of ``torch.onnx`` or its runtime, which does not take the model.
    """
    signature, example, _ = read_inputs(model)
    cases = make_cases(model.module, signature, [example])
    with tempfile.TemporaryDirectory() as folder:
        _convert(model, signature, example, Path(folder))
        session = RUNTIME.open(Path(folder), CPU)
    results = []
    for case in cases:
        feeds = {name: to_array(tensor) for name, tensor in case.inputs.items()}
        got = session.run(feeds, f"case '{case.name}'")
        results += compare(case, dict(zip(case.expected, got.values(), strict=True)))
    hold_to_budget(results, load_recipe(RECIPE).budget, "torch.onnx")


def _convert(model: Model, signature: Signature, example: Inputs, folder: Path) -> None:
    shapes = named_shapes(signature)
    with quiet_torch(), contextlib.redirect_stdout(io.StringIO()):
        exported = torch.onnx.export(
            model.module, (), kwargs=example, dynamic_shapes=shapes, dynamo=True, verbose=False
        )
    assert exported is not None
    exported.save(str(folder / ONNX_FILE))
